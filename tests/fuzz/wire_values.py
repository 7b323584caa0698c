"""Values for requests, made from a JSON schema and a seed: mostly what it allows, else what it refuses.

Every free text carries the canary of whoever sends it, so that a reply that shows it to somebody else can
be told. Decides nothing about requests; knows patterns of the wire by a sample of each.
"""

import random
from collections.abc import Callable
from typing import Any

STRANGE_NUMBERS = (-1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**64, -(2**63) - 1, 1.5, 1e308, -0.0)
STRANGE_TEXTS = (
    "", "\x00", "a\x00b", "\u202eabc", "\u200b", "\ud800", "NaN", "Infinity", "-1", "1e5", "1.0000001",
    "0x10", "9" * 40, "A" * 5_000, "'; DROP TABLE bids; --", "=1+1", "../../etc/passwd", "%00", "e\u0301",
    "\U0001f600",
)  # fmt: skip
STRANGE_VALUES = (None, True, False, [], {}, [[]], {"": None}, "x", 7)
PRICES = ("0.50", "1.00", "1.20", "1.5", "2", "3.000000", "0", "999999999999.999999", "1e-6")
INSTANTS = (
    "2026-11-24T06:00:00Z", "2031-01-01T00:00:00.000001+14:00", "2000-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z", "2026-02-30T00:00:00Z",
)  # fmt: skip
DEPTH_MAX = 6


class Values:
    """Makes values for one sender."""

    def __init__(
        self, dice: random.Random, components: dict[str, Any], canary: str, known: Callable[[str], str | None]
    ) -> None:
        self._dice = dice
        self._components = components
        self._canary = canary
        self._known = known  # an id for a field's name, None where no object of its kind is known
        self._patterns: dict[str, Callable[[], str]] = {
            "^(0|[1-9]": lambda: dice.choice(PRICES),
            "^(ssh-": lambda: f"ssh-ed25519 {'A' * 68} {canary}",
            "^[a-z0-9][A-Za-z0-9._/:@": lambda: f"registry.example/{canary}:1",
            "^[A-Za-z0-9+/]{43}=": lambda: "A" * 43 + "=",
            "^(gpu|model)": lambda: dice.choice(("gpu", "model")),
            "^(halted": lambda: dice.choice(("halted", "cancel_only")),
            "^[a-z_.]{1,40}": lambda: dice.choice(("tick", "bid.placed", "notice.issued")),
            "^[A-Za-z_][A-Za-z0-9_]": lambda: "NAME",
            "^[a-z0-9]+([.": lambda: f"h100.fuzz{dice.randrange(50)}",
        }

    def text(self) -> str:
        """Return a short text with the canary in it."""
        return f"{self._canary}-{self._dice.randrange(1_000)}"

    def of(self, schema: dict[str, Any], name: str = "", depth: int = 0) -> Any:
        """Return a value for a schema; one in forty is not of it."""
        dice = self._dice
        if dice.random() < 0.025:
            return self.strange()
        if "$ref" in schema:
            return self.of(self._components[schema["$ref"].rpartition("/")[2]], name, depth)
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return self.of(dice.choice(schema[choice]), name, depth)
        if "enum" in schema:
            return dice.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            if depth > DEPTH_MAX:
                return []
            count = dice.choice((0, 1, 1, 2, 3))
            return [self.of(schema.get("items", {}), name, depth + 1) for _ in range(count)]
        if kind == "string":
            return self._string(schema, name)
        if kind in ("integer", "number"):
            low, high = schema.get("minimum", 0), schema.get("maximum", 1_000)
            return dice.choice((low, min(high, low + 1), dice.randint(low, min(high, low + 16)), high))
        if kind == "boolean":
            return dice.random() < 0.5
        if kind == "null":
            return None
        return self.text()

    def strange(self) -> Any:
        """Return something that no field expects."""
        dice = self._dice
        which = dice.randrange(4)
        if which == 0:
            return dice.choice(STRANGE_NUMBERS)
        if which == 1:
            return dice.choice(STRANGE_TEXTS)
        if which == 2:
            nested: Any = 1
            for _ in range(dice.choice((3, 50, 400))):
                nested = [nested]
            return nested
        return dice.choice(STRANGE_VALUES)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        dice = self._dice
        made: dict[str, Any] = {}
        required = schema.get("required", [])
        for name, inner in schema.get("properties", {}).items():
            if name in required or dice.random() < 0.25:
                made[name] = self.of(inner, name, depth + 1)
        if not schema.get("properties") and schema.get("additionalProperties"):
            for number in range(dice.choice((1, 1, 2))):
                made[f"NAME{number}" if dice.random() < 0.9 else self.text()] = self.text()
        if dice.random() < 0.02:
            made["balance"] = "1000000.00"
        if required and dice.random() < 0.02:
            made.pop(dice.choice(required), None)
        return made

    def _string(self, schema: dict[str, Any], name: str) -> str:
        dice = self._dice
        known = self._known(name)
        if known is not None and dice.random() < 0.95:
            return known
        if name in ("url", "urls"):
            # Never called: the server under test sends no webhooks.
            return f"https://receiver.invalid/{self._canary}"
        if schema.get("format") == "date-time":
            return dice.choice(INSTANTS)
        pattern = schema.get("pattern", "")
        for start, make in self._patterns.items():
            if pattern.startswith(start):
                return make()
        return self.text()[: schema.get("maxLength", 80)]
