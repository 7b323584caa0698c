"""Visiting a running demo from beside it: where it listens, who one is there, and sign-in links.

The demo writes its address into its data directory for as long as it runs; the keys lie there too. Everything
goes through the HTTP API, as anybody else's.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from fallow import people as people_file
from fallow.people import People

ADDRESS_FILE = "demo-address.json"
REQUEST_SECONDS_MAX = 10.0


class NoDemo(Exception):
    """No demo runs on this directory."""


class Refused(Exception):
    """The demo did not do what a visitor asked for."""


class Visitor:
    """One way into a running demo, with everybody's keys."""

    def __init__(self, url: str, people: People, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.people = people
        self._session = session

    def key_of(self, role: str) -> str:
        """Return the key that the demo printed for a buyer, an owner or an operator."""
        person: people_file.Person = getattr(self.people, role)
        return person.key

    async def call(self, key: str, method: str, path: str, body: Any = None) -> Any:
        """Send one request; return its document. Raises Refused, aiohttp.ClientError, TimeoutError."""
        headers = {"Authorization": f"Bearer {key}"}
        async with self._session.request(method, path, json=body, headers=headers) as response:
            document = await response.json()
            if response.status >= 400:
                raise Refused(f"{method} {path}: {document['code']}: {document['detail']}")
            return document

    async def sign_in_link(self, role: str) -> str:
        """Return an address that signs one browser in, once."""
        link = await self.call(self.key_of(role), "POST", "/v1/sign-in-links", {})
        return f"{self.url}/#/sign-in?token={link['token']}"


def note_address(directory: Path, url: str) -> None:
    """Say where the demo of this directory listens."""
    (directory / ADDRESS_FILE).write_text(json.dumps({"api": url}))


def forget_address(directory: Path) -> None:
    """The demo of this directory listens no more."""
    (directory / ADDRESS_FILE).unlink(missing_ok=True)


@asynccontextmanager
async def visiting(url: str, people: People) -> AsyncIterator[Visitor]:
    """Open a session with a demo that listens at `url`."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        yield Visitor(url, people, session)


@asynccontextmanager
async def visiting_demo_of(directory: Path) -> AsyncIterator[Visitor]:
    """Visit the demo that runs on a directory; raises NoDemo."""
    try:
        url: str = json.loads((directory / ADDRESS_FILE).read_text())["api"]
        people = people_file.load(directory)
    except FileNotFoundError:
        raise NoDemo(f"no demo runs on {directory}; start one with `fallow demo`") from None
    try:
        async with visiting(url, people) as visitor:
            yield visitor
    except aiohttp.ClientConnectorError:
        raise NoDemo(f"the demo of {directory} does not answer at {url}") from None


async def open_link(directory: Path, role: str) -> str:
    """Return a one-time sign-in link for the demo that runs on a directory."""
    async with visiting_demo_of(directory) as visitor:
        return await visitor.sign_in_link(role)
