"""`fallow` as a process of its own, against a test's market and with a home of its own."""

import asyncio
import json
import os
import subprocess
import sys


class Shell:
    """Runs `fallow` with a server and a key in its environment, the buyer's unless told otherwise."""

    def __init__(self, venue, home, key=None):
        self.server = str(venue.client.make_url("/")).rstrip("/")
        self.key = key or venue.buyer
        self.home = home

    async def start(self, *arguments, key=None, server=None, stdout=subprocess.PIPE, **variables):
        """Start a command; an empty key or server leaves it out of the environment."""
        environment = {
            **os.environ,
            "FALLOW_URL": self.server if server is None else server,
            "FALLOW_KEY": self.key if key is None else key,
            "NO_COLOR": "1",
            "XDG_CONFIG_HOME": str(self.home),
            **variables,
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fallow.cli", *arguments,
            env=environment, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *arguments, text="", **options):
        """Return (exit code, output, errors) of a command that is given `text` on its standard input."""
        process = await self.start(*arguments, **options)
        output, errors = await process.communicate(text.encode())
        return process.returncode, output.decode(), errors.decode()

    async def json(self, *arguments, **options):
        """Return the objects that a command prints."""
        code, output, errors = await self.run(*arguments, "-o", "json", **options)
        assert code == 0, errors
        return [json.loads(line) for line in output.splitlines()]
