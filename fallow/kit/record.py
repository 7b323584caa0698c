"""The kit's files: NDJSON, a head and then a line per tick. A recording is a market's ticks with their
curves; a run's log has beside each of them what the bot bought until the next one.

Read line by line, so their length does not matter; a line and a file have a maximum. A file that was cut off
in its last line is read up to there.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from fallow.client.model import Curve, Market, Tick
from fallow.client.stream import TickWithCurve

FORMAT = 1
LINE_BYTES_MAX = 64 * 1024
FILE_BYTES_MAX = 1 << 30

T = TypeVar("T")
Row = TypeVar("Row", bound=Struct)


class Recording(Struct, frozen=True, tag_field="kind", tag="recording"):
    """The head of a recording."""

    format: int
    market: Market


class RunLog(Struct, frozen=True, tag_field="kind", tag="run"):
    """The head of a run's log."""

    format: int
    run: str
    strategy: str
    mode: str
    started_at: datetime
    market: Market


class Interval(Struct, frozen=True, tag_field="kind", tag="interval"):
    """From one tick to the next: `curve` is the market without the bot, `tick` with it."""

    tick: Tick
    curve: Curve
    is_recorded: bool  # paper and replay, where the market's own tick is known
    recorded_price: Decimal | None  # of that tick
    price_alone: Decimal | None  # that clearing it here again gives without the bot
    seconds: int
    gpu_seconds: int
    cost: Decimal
    gpus: int  # most at a time
    interruptions: int
    notices: int


class WrongFileError(ValueError):
    """The file is not what was asked for."""


class Writer:
    """Appends lines until the file would be longer than `bytes_max`."""

    def __init__(self, file: BinaryIO, head: Recording | RunLog, *, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._file = file
        self._left = bytes_max
        self.is_full = False
        self.write(head)

    def write(self, row: Struct) -> None:
        """Write one line, and out of the process; nothing once the file is full."""
        line = msgspec.json.encode(row) + b"\n"
        self.is_full = self.is_full or len(line) > self._left
        if not self.is_full:
            self._left -= len(line)
            self._file.write(line)
            self._file.flush()


def read_recording(path: Path) -> tuple[Recording, Iterator[TickWithCurve]]:
    """Return a recording's head and its ticks, in order. Raises WrongFileError, OSError."""
    return _read(path, Recording, TickWithCurve)


def read_run(path: Path) -> tuple[RunLog, Iterator[Interval]]:
    """Return a run's head and its intervals. Raises WrongFileError, OSError."""
    return _read(path, RunLog, Interval)


def _read(path: Path, head: type[T], row: type[Row]) -> tuple[T, Iterator[Row]]:
    lines = _lines(path)
    try:
        first = msgspec.json.decode(next(lines, b""), type=head)
    except msgspec.DecodeError as error:
        raise WrongFileError(f"{path} is no {head.__name__} file: {error}") from None
    if getattr(first, "format", None) != FORMAT:
        raise WrongFileError(f"{path}: expected format {FORMAT}")
    return first, _rows(path, lines, msgspec.json.Decoder(row))


def _rows(path: Path, lines: Iterator[bytes], decoder: msgspec.json.Decoder[Row]) -> Iterator[Row]:
    for number, line in enumerate(lines, 2):
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            raise WrongFileError(f"{path}, line {number}: {error}") from None


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES_MAX):
            if not line.endswith(b"\n"):
                if len(line) == LINE_BYTES_MAX:
                    raise WrongFileError(f"{path}: a line is longer than {LINE_BYTES_MAX} bytes")
                return  # cut off while it was written
            yield line
