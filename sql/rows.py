"""Rows and structs: one table per struct of auction/model.py, one column per field.

Written as sets: a statement takes one array per column and is the same text for one row and for ten
thousand. The mapping is derived from the structs, so a field cannot be forgotten on one of the ways.
"""

import types
import typing
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from asyncpg import Record
from msgspec import Struct

from auction.model import Account, ApiKey, Bid, Event, Lease, Limits, Market, Node, Notice, Offer, Tick
from auction.money import Payout
from auction.targets import Target

S = TypeVar("S", bound=Struct)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

_COLUMN_NAMES = {"limit": "limit_price"}  # `limit` is a reserved word of SQL


class Column(Struct, frozen=True):
    name: str
    field: str
    array_type: str  # of the statement's parameter
    expression: str  # how the parameter's element becomes the column's value
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None
    is_optional: bool

    def array(self, rows: Sequence[Struct]) -> list[Any] | None:
        """Return the column of these rows; None for one without a value, which costs nobody anything."""
        values = list(map(attrgetter(self.field), rows))
        if self.is_optional and values.count(None) == len(values):
            return None  # unnest pads what is shorter with NULLs
        return values if self.encode is None else list(map(self.encode, values))


class Table(Struct, frozen=True, eq=False):
    name: str
    struct: type[Struct]
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    @property
    def select_list(self) -> str:
        return ", ".join(column.name for column in self.columns)

    def arrays(self, rows: Sequence[Struct]) -> list[list[Any] | None]:
        """Return the statement's parameters: one list per column, in row order."""
        return [column.array(rows) for column in self.columns]

    @cache  # noqa: B019 - there is one table for each struct, for ever
    def insert_statement(self) -> str:
        names = [column.name for column in self.columns]
        parameters = ", ".join(f"${i}::{column.array_type}" for i, column in enumerate(self.columns, 1))
        values = ", ".join(column.expression for column in self.columns)
        return (
            f"INSERT INTO {self.name} ({', '.join(names)}) "
            f"SELECT {values} FROM unnest({parameters}) AS r({', '.join(names)})"
        )

    @cache  # noqa: B019 - there is one table for each struct, for ever
    def upsert_statement(self) -> str:
        keys = set(self.key)
        updates = ", ".join(
            f"{column.name} = excluded.{column.name}" for column in self.columns if column.name not in keys
        )
        return f"{self.insert_statement()} ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {updates}"


def _array_literal(values: list[Any]) -> str:
    return "{" + ",".join(str(value) for value in values) + "}"


def to_json(value: Any) -> str:
    """Write a value as jsonb takes it."""
    return msgspec.json.encode(value).decode()


def _column(field: msgspec.structs.FieldInfo) -> Column:
    name = _COLUMN_NAMES.get(field.name, field.name)
    kind, is_optional = field.type, False
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind, is_optional = next(part for part in typing.get_args(kind) if part is not type(None)), True
    kind = getattr(kind, "__supertype__", kind)
    origin = typing.get_origin(kind)
    if origin is list and issubclass(typing.get_args(kind)[0], Struct):
        decoder = msgspec.json.Decoder(kind)
        return Column(name, field.name, "text[]", f"r.{name}::jsonb", to_json, decoder.decode, is_optional)
    if origin is list:
        element = {str: "text", int: "smallint"}[typing.get_args(kind)[0]]
        # unnest flattens nested arrays, so a list travels as its literal.
        return Column(name, field.name, "text[]", f"r.{name}::{element}[]", _array_literal, list, is_optional)
    if origin is dict:
        return Column(name, field.name, "bytea[]", f"r.{name}", _encode, _decode, is_optional)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return Column(name, field.name, "text[]", f"r.{name}", None, kind, is_optional)
    array_type = {int: "bigint[]", str: "text[]", bool: "boolean[]", bytes: "bytea[]"}[kind]
    return Column(name, field.name, array_type, f"r.{name}", None, None, is_optional)


def _table(name: str, struct: type[Struct], *key: str) -> Table:
    return Table(name, struct, tuple(_column(field) for field in msgspec.structs.fields(struct)), key)


TABLES: dict[type[Struct], Table] = {
    table.struct: table
    for table in (
        _table("accounts", Account, "id"),
        _table("api_keys", ApiKey, "id"),
        _table("markets", Market, "id"),
        _table("nodes", Node, "id"),
        _table("offers", Offer, "id"),
        _table("bids", Bid, "id"),
        _table("leases", Lease, "id"),
        _table("notices", Notice, "id"),
        _table("payouts", Payout, "id"),
        _table("limits", Limits, "id"),
        _table("targets", Target, "id"),
        _table("ticks", Tick, "market", "tick"),
        _table("events", Event),
    )
}


def select_columns(struct: type[Struct], prefix: str = "") -> str:
    """Return the column list that `decode_rows` expects, each with `prefix` before it."""
    return ", ".join(f"{prefix}{column.name}" for column in TABLES[struct].columns)


def decode_rows(struct: type[S], records: Sequence[Record]) -> list[S]:
    """Turn rows selected by `select_columns` (first, in that order) into structs."""
    columns = TABLES[struct].columns
    decoders = [(i, column.decode) for i, column in enumerate(columns) if column.decode is not None]
    count = len(columns)
    structs = []
    for record in records:
        values = list(record.values())[:count]
        for i, decode in decoders:
            if values[i] is not None:
                values[i] = decode(values[i])
        structs.append(struct(*values))
    return structs
