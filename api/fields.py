"""The scalars of the wire: what one field may hold, and how it is written back.

Decides the text form of money, prices, times, ids and free text (API.md "Conventions"), for every
request struct. Each is a class of its own so that msgspec hands the raw value to `decode_field` and
puts the field's path on whatever is refused. Must not know what a field is used for.
"""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_network
from typing import Annotated, Any

from msgspec import Meta

from auction.units import (
    AMOUNT_MAX,
    GPU_COUNT_MAX,
    MICROSECONDS_PER_SECOND,
    PRICE_MAX,
    format_microusd,
    parse_microusd,
)

NAME_CHARACTERS_MAX = 80
REFERENCE_CHARACTERS_MAX = 128
CLIENT_BID_ID_CHARACTERS_MAX = 64
LABELS_MAX = 16
LABEL_CHARACTERS_MAX = 64
CONNECT_CHARACTERS_MAX = 1024
ARGUMENT_CHARACTERS_MAX = 8192
ENV_MAX = 64
OBJECT_ID_CHARACTERS_MAX = 64
NOTICE_SECONDS_MAX = 3_600
RUN_SECONDS_MAX = 366 * 86_400
CANCEL_AFTER_SECONDS_MAX = 86_400

CURRENCY = "USD"

# The calendar's last representable instant is far away; a year of four digits keeps RFC 3339 legal.
TIME_US_MAX = 253_402_300_799_999_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_OBJECT_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.\-]{{0,{OBJECT_ID_CHARACTERS_MAX - 1}}}", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)

_PUBLIC_KEY = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@\-]{0,254}", re.ASCII)
_SSH_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com)"
    r" [A-Za-z0-9+/]{40,1400}={0,2}( [!-~]{1,128})?",
    re.ASCII,
)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)

# Bidirectional controls and zero-width characters let one name look like another.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class _Plain(type):
    """A field's class only marks it for the decoder: the value stays a plain `str`, `int` or `dict`.

    So it can go into a command, a statement or an answer as it is; msgspec writes no subclasses.
    """

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


class PriceField(int, metaclass=_Plain):
    """A price in microusd per GPU-hour, sent as a decimal string."""


class AmountField(int, metaclass=_Plain):
    """An amount in microusd, above zero, sent as a decimal string."""


class CostField(int, metaclass=_Plain):
    """A cost in microusd, zero or more, sent as a decimal string."""


class InstantField(int, metaclass=_Plain):
    """Microseconds since the epoch, sent as RFC 3339."""


class IdField(str, metaclass=_Plain):
    """An id or a market's slug."""


class NameField(str, metaclass=_Plain):
    """A person's name for something: short, normalised, visible text."""


class ReferenceField(str, metaclass=_Plain):
    """The caller's own reference for a payment; may be empty."""


class NetworkField(str, metaclass=_Plain):
    """An IP network such as 192.0.2.0/24, or one address."""


class PublicKeyField(bytes, metaclass=_Plain):
    """The public half of an ed25519 key pair: 32 bytes, sent as base64."""


class ClientBidIdField(str, metaclass=_Plain):
    """The caller's own id of a bid."""


class LabelsField(dict[str, str], metaclass=_Plain):
    """Free labels on a bid."""


class ArgumentField(str, metaclass=_Plain):
    """One argument of a program."""


class ImageField(str, metaclass=_Plain):
    """A container image such as ghcr.io/org/name:tag."""


class SshKeyField(str, metaclass=_Plain):
    """A public key as in authorized_keys: type, base64, comment; no options."""


class EnvField(dict[str, str], metaclass=_Plain):
    """A program's environment."""


class ConnectField(dict[str, str], metaclass=_Plain):
    """How a tenant reaches its lease, as the node's agent tells it."""


GpuCount = Annotated[int, Meta(ge=1, le=GPU_COUNT_MAX)]
NodeGpuCount = Annotated[int, Meta(ge=1, le=1024)]
RunSeconds = Annotated[int, Meta(ge=1, le=RUN_SECONDS_MAX)]
TimeoutSeconds = Annotated[int, Meta(ge=0, le=CANCEL_AFTER_SECONDS_MAX)]
NoticeSeconds = Annotated[int, Meta(ge=0, le=NOTICE_SECONDS_MAX)]
WaitSeconds = Annotated[int, Meta(ge=0, le=60)]
PageLimit = Annotated[int, Meta(ge=1, le=500)]
TickNumber = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
EventSeq = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Cursor = Annotated[str, Meta(min_length=1, max_length=256)]

_DECIMAL_SCHEMA = {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?$"}
_MAP_OF_TEXT = {"type": "object", "additionalProperties": {"type": "string"}}
_NO_NUL = {"type": "string", "pattern": r"^[^\u0000]*$"}

SCHEMAS: dict[type, dict[str, Any]] = {
    PriceField: _DECIMAL_SCHEMA | {"description": "USD per GPU-hour"},
    AmountField: _DECIMAL_SCHEMA | {"description": "USD"},
    CostField: _DECIMAL_SCHEMA | {"description": "USD"},
    InstantField: {"type": "string", "format": "date-time"},
    IdField: {
        "type": "string",
        "maxLength": OBJECT_ID_CHARACTERS_MAX,
        "pattern": f"^{_OBJECT_ID.pattern}$",
    },
    NameField: {"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX},
    ReferenceField: {"type": "string", "maxLength": REFERENCE_CHARACTERS_MAX},
    NetworkField: {"type": "string", "maxLength": 43},
    PublicKeyField: {"type": "string", "pattern": r"^[A-Za-z0-9+/]{43}=$", "description": "32 bytes, base64"},
    ClientBidIdField: {"type": "string", "minLength": 1, "maxLength": CLIENT_BID_ID_CHARACTERS_MAX},
    LabelsField: _MAP_OF_TEXT | {"maxProperties": LABELS_MAX},
    ConnectField: _MAP_OF_TEXT | {"maxProperties": LABELS_MAX},
    ArgumentField: _NO_NUL | {"maxLength": ARGUMENT_CHARACTERS_MAX},
    ImageField: {"type": "string", "pattern": f"^{_IMAGE.pattern}$"},
    SshKeyField: {"type": "string", "pattern": f"^{_SSH_KEY.pattern}$"},
    EnvField: _MAP_OF_TEXT
    | {"maxProperties": ENV_MAX, "propertyNames": {"pattern": f"^{_ENV_NAME.pattern}$"}},
}


def decode_field(kind: type, value: Any) -> Any:
    """Read one field of the classes above; raise ValueError saying what was expected."""
    read = _READERS.get(kind)
    if read is None:
        raise NotImplementedError(kind)
    return read(value)


def schema_of_field(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of one of the classes above."""
    if kind not in SCHEMAS:
        raise NotImplementedError(kind)
    return SCHEMAS[kind]


def is_object_id(value: object) -> bool:
    """Say whether `value` has the shape of an id; what has not cannot name anything."""
    return isinstance(value, str) and _OBJECT_ID.fullmatch(value) is not None


def is_client_bid_id(value: str) -> bool:
    """Say whether `value` could have been stored as a client_bid_id."""
    try:
        return _text(value, least=1, most=CLIENT_BID_ID_CHARACTERS_MAX) == value
    except ValueError:
        return False


def parse_instant(value: object) -> int:
    """Read RFC 3339 as microseconds since the epoch; raise ValueError on anything else."""
    if not isinstance(value, str) or len(value) > 40 or _INSTANT.fullmatch(value) is None:
        raise ValueError("expected a time such as 2026-01-31T12:00:00.000000Z")
    moment = datetime.fromisoformat(value.upper())
    try:
        instant_us = (moment - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise ValueError("expected a time after 1970 and before the year 10000") from None
    if not 0 <= instant_us <= TIME_US_MAX:
        raise ValueError("expected a time after 1970 and before the year 10000")
    return instant_us


@lru_cache(maxsize=1_024)  # most of what is told in a moment names the same few: a tick, a creation
def format_instant(instant_us: int) -> str:
    """Write microseconds since the epoch as RFC 3339, UTC, six places."""
    second, microseconds = divmod(instant_us, MICROSECONDS_PER_SECOND)
    return f"{_format_second(second)}.{microseconds:06d}Z"


@lru_cache(maxsize=1_024)
def _format_second(second: int) -> str:
    return f"{_EPOCH + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}"


def format_instant_or_none(instant_us: int | None) -> str | None:
    return None if instant_us is None else format_instant(instant_us)


def format_price_or_none(price: int | None) -> str | None:
    return None if price is None else format_microusd(price)


def _object_id(value: object) -> str:
    if not isinstance(value, str) or _OBJECT_ID.fullmatch(value) is None:
        raise ValueError("expected an id: letters, digits, '.', '_' and '-'")
    return value


def _network(value: object) -> str:
    if not isinstance(value, str) or len(value) > 43:
        raise ValueError("expected a network such as 192.0.2.0/24")
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError("expected a network such as 192.0.2.0/24, its host bits zero") from None


def _public_key(value: object) -> bytes:
    if isinstance(value, str) and _PUBLIC_KEY.fullmatch(value) is not None:
        return b64decode(value)
    raise ValueError("expected the 32 bytes of an ed25519 public key, in base64")


def _microusd(value: object, *, least: int, most: int) -> int:
    if not isinstance(value, str):
        raise ValueError('expected a decimal string such as "2.35"')
    number = parse_microusd(value[:64])
    if not least <= number <= most:
        raise ValueError(f"expected {format_microusd(least)} to {format_microusd(most)}")
    return number


def _text(value: object, *, least: int, most: int) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    if least <= len(value) <= most and value.isascii() and value.isprintable():
        return value  # what nearly everybody sends is normal and visible as it is
    # Normalising is quadratic for some long texts: the length is looked at first, and again after.
    if len(value) > 4 * most:
        raise ValueError(f"expected {least} to {most} characters")
    text = unicodedata.normalize("NFC", value)
    if not least <= len(text) <= most:
        raise ValueError(f"expected {least} to {most} characters, found {len(text)}")
    if any(unicodedata.category(character) in _INVISIBLE_CATEGORIES for character in text):
        raise ValueError("control, format and surrogate characters are not allowed")
    return text


def _text_map(value: object, most: int) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("expected an object of texts")
    if len(value) > LABELS_MAX:
        raise ValueError(f"expected at most {LABELS_MAX} entries, found {len(value)}")
    return {
        _text(key, least=1, most=LABEL_CHARACTERS_MAX): _text(item, least=0, most=most)
        for key, item in value.items()
    }


def _argument(value: object) -> str:
    if not isinstance(value, str) or len(value) > ARGUMENT_CHARACTERS_MAX or "\0" in value:
        raise ValueError(f"expected at most {ARGUMENT_CHARACTERS_MAX} characters without NUL")
    return value


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(f"expected {expected}")
        return value

    return read


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > ENV_MAX:
        raise ValueError(f"expected an object of at most {ENV_MAX} texts")
    name = _matching(_ENV_NAME, "names of letters, digits and '_'")
    return {name(key): _argument(item) for key, item in value.items()}


_READERS: dict[type, Callable[[object], Any]] = {
    PriceField: lambda value: _microusd(value, least=0, most=PRICE_MAX),
    AmountField: lambda value: _microusd(value, least=1, most=AMOUNT_MAX),
    CostField: lambda value: _microusd(value, least=0, most=AMOUNT_MAX),
    InstantField: parse_instant,
    IdField: _object_id,
    NameField: lambda value: _text(value, least=1, most=NAME_CHARACTERS_MAX),
    ReferenceField: lambda value: _text(value, least=0, most=REFERENCE_CHARACTERS_MAX),
    NetworkField: _network,
    PublicKeyField: _public_key,
    ClientBidIdField: lambda value: _text(value, least=1, most=CLIENT_BID_ID_CHARACTERS_MAX),
    LabelsField: lambda value: _text_map(value, LABEL_CHARACTERS_MAX),
    ConnectField: lambda value: _text_map(value, CONNECT_CHARACTERS_MAX),
    ArgumentField: _argument,
    ImageField: _matching(_IMAGE, "an image such as ghcr.io/org/name:tag"),
    SshKeyField: _matching(_SSH_KEY, "a public key such as ssh-ed25519 AAAA... name"),
    EnvField: _environment,
}
assert _READERS.keys() == SCHEMAS.keys(), "every field is read and documented"
