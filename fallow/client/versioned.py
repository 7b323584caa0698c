"""Requests that hold for one version of an object: If-Match goes with every attempt.

The transport is one of its own, so that the header cannot stick to another request.
"""

import shlex
from types import TracebackType
from typing import Self

from fallow.client.transport import Transport


class VersionedTransport(Transport):
    """The server and key of another transport, asked only about this version of an object."""

    def __init__(self, like: Transport, version: int) -> None:
        super().__init__(
            like._server,
            like._key,
            signing_key=like._signing_key,
            timeout_seconds=like._timeout_seconds,
            trace=like._trace,
        )
        self._fixed_headers = {"If-Match": f'"{version}"'}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _as_curl(self, method: str, path: str, query: dict[str, str], data: bytes | None) -> str:
        condition = shlex.join(["-H", f"If-Match: {self._fixed_headers['If-Match']}"])
        return f"{super()._as_curl(method, path, query, data)} {condition}"
