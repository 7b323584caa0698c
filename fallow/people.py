"""Who takes part in a demo: their accounts and keys, made once per data directory.

The keys lie in `demo-keys.json` (mode 0600) beside the database, so that a demo started again has the
same ones. They are random per install and open a demo market on loopback only.
"""

import json
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from api.keys import mint_key, scopes_of
from auction.commands import Command, CreateAccount, Deposit
from auction.ids import random_id
from auction.units import MICROUSD_PER_USD, Amount
from fallow.world import Venue

BOTS = 10
BUYER_USD = 1_000
BOT_USD = 4_000
FILE_NAME = "demo-keys.json"


class Person(Struct, frozen=True):
    account: str
    name: str
    roles: list[str]
    key: str  # the text, shown to nobody but this machine's user


class People(Struct, frozen=True):
    buyer: Person
    operator: Person
    bots: list[Person]
    owners: dict[str, Person]  # by host of the recorded offers

    @property
    def owner(self) -> Person:
        """The owner whose key is printed: the first one."""
        return next(iter(self.owners.values()))


def invent(venues: tuple[Venue, ...], now_us: int) -> tuple[People, list[Command]]:
    """Make everybody; return them and the commands that open their accounts and fund them."""
    commands: list[Command] = []

    def person(name: str, *roles: str, usd: int = 0) -> Person:
        account = random_id("acct")
        key, text = mint_key(account, "demo key", scopes_of(roles), is_live=False, now_us=now_us)
        commands.append(CreateAccount(account, name, sorted(roles), key))
        if usd:
            commands.append(Deposit(random_id("dep"), account, Amount(usd * MICROUSD_PER_USD), "demo money"))
        return Person(account, name, list(roles), text)

    people = People(
        buyer=person("you", "buyer", usd=BUYER_USD),
        operator=person("operator", "operator"),
        bots=[person(f"bot-{number}", "buyer", usd=BOT_USD) for number in range(BOTS)],
        owners={
            host: person(host, "owner")
            for host in dict.fromkeys(machine.host for venue in venues for machine in venue.machines)
        },
    )
    return people, commands


def save(people: People, data_dir: Path) -> None:
    """Write the keys for this user's eyes only, whole or not at all."""
    path = data_dir / FILE_NAME
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(msgspec.to_builtins(people), indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def load(data_dir: Path) -> People:
    """Read what `save` wrote; raises FileNotFoundError in a directory without a demo."""
    return msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=People)
