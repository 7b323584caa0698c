"""A proxy between asyncpg and PostgreSQL that knows where a request ends and where its answer does.

A client's messages up to the point where it waits are one flush. For each flush the test decides a fate: let
it pass, cut before the server has seen it, cut when the server has answered and the client has not heard,
cut in the middle of the answer, or hold the answer up. It reads as much of the protocol as that takes
(message boundaries, statement texts, whether a transaction is open) and changes nothing.
"""

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sql.pool import Database

PORT = 5432  # of the socket's name only
_WAITS = b"SQH"  # Sync, Query, Flush: behind these a client waits
_ROW_OR_NONE = b"TnE"  # what ends the answer to a Flush behind a Describe
_READY = b"Z"


class Fate(Enum):
    """What becomes of one flush."""

    PASS = "pass"
    CUT_BEFORE = "cut before the server saw it"
    CUT_AFTER = "cut after the server's answer"
    TRUNCATE = "cut in the middle of the answer"
    DELAY = "answer held up"


@dataclass(frozen=True)
class Flush:
    """What a client has sent before it waits."""

    commits: bool  # the server's answer is the answer to a commit of the engine


Decide = Callable[[Flush], Fate]


class Proxy:
    """Listens on a socket of its own in `directory`; `database` is how to connect through it."""

    def __init__(self, behind: Database, directory: Path, *, delay_s: float = 0.02) -> None:
        arguments = behind.arguments
        self.database = Database({**arguments, "host": str(directory), "port": PORT})
        self.decide: Decide = lambda flush: Fate.PASS
        self.delay_s = delay_s
        self.commits = 0
        self._target = f"{arguments['host']}/.s.PGSQL.{arguments['port']}"
        self._path = f"{directory}/.s.PGSQL.{PORT}"
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_: Any) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection there is."""
        for line in list(self._lines):
            line.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()  # as the server would: there is nobody
            return
        line = _Line(self, (reader, writer), (server_reader, server_writer))
        self._lines.add(line)
        try:
            await line.run()
        finally:
            self._lines.discard(line)


class _Line:
    """One client and its session."""

    def __init__(self, proxy: Proxy, client: Any, server: Any) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._server_reader, self._server = server
        self._statements: dict[bytes, bytes] = {}
        self._fate = Fate.PASS
        self._ends = _READY
        self._held: list[bytes] = []
        self._is_open = False  # a transaction, as the server said last

    async def run(self) -> None:
        pumps = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self.cut()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def cut(self) -> None:
        self._client.transport.abort()
        self._server.transport.abort()

    async def _up(self) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            (length,) = struct.unpack("!I", head := await self._client_reader.readexactly(4))
            self._flush([head + await self._client_reader.readexactly(length - 4)], _READY, commits=False)
            messages: list[bytes] = []
            commits = False
            while True:
                message = await _message(self._client_reader)
                messages.append(message)
                commits |= self._read(message)
                if message[:1] not in _WAITS:
                    if message[:1] == b"X":
                        return
                    continue
                self._flush(messages, _ROW_OR_NONE if message[:1] == b"H" else _READY, commits=commits)
                messages, commits = [], False

    def _read(self, message: bytes) -> bool:
        """Learn statements' texts; say whether this message makes the engine's writes durable."""
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._statements[name] = text
        elif kind == b"B":
            text = self._statements.get(body.split(b"\0", 2)[1], b"")
            return b"require_fence" in text and not self._is_open
        return kind == b"Q" and body.startswith(b"COMMIT")

    def _flush(self, messages: list[bytes], ends: bytes, *, commits: bool) -> None:
        self._proxy.commits += commits
        self._fate, self._ends = self._proxy.decide(Flush(commits)), ends
        if self._fate is Fate.CUT_BEFORE:
            self.cut()
        else:
            self._server.write(b"".join(messages))

    async def _down(self) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                message = await _message(self._server_reader)
                if message[:1] == _READY:
                    self._is_open = message[5:6] != b"I"
                if self._fate is Fate.PASS:
                    self._client.write(message)
                    continue
                self._held.append(message)
                if message[:1] in self._ends and not await self._settle():
                    return

    async def _settle(self) -> bool:
        """The held answer is whole: do with it what was decided; False where the line is cut."""
        answer, self._held = b"".join(self._held), []
        if self._fate is Fate.DELAY:
            await asyncio.sleep(self._proxy.delay_s)
            self._client.write(answer)
            self._fate = Fate.PASS
            return True
        if self._fate is Fate.TRUNCATE:
            self._client.write(answer[: len(answer) // 2])
            await self._client.drain()
            self._client.close()  # in order: what was written arrives
        return False


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!I", head[1:])
    return head + await reader.readexactly(length - 4)
