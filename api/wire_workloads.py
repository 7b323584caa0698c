"""What a bid's nodes are to run: its shape on the wire, and the bytes under which it is kept."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.fields import ArgumentField, EnvField, ImageField, SshKeyField
from auction.errors import Rejection
from auction.workloads import WORKLOAD_BYTES_MAX


class PayloadBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A program and its environment; with an `image` in a container, whose own command is the default."""

    command: Annotated[list[ArgumentField], Meta(max_length=64)] = []
    image: ImageField | None = None
    env: EnvField | None = None


class PayloadView(Struct, frozen=True):
    command: list[str] = []
    image: str | None = None
    env: dict[str, str] = {}


class WorkloadView(Struct, frozen=True):
    """What its tenant sent; the owner of a node that it wins can read it."""

    ssh_public_key: str | None = None
    payload: PayloadView | None = None


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(WorkloadView).decode


def content_of(ssh_public_key: SshKeyField | None, payload: PayloadBody | None) -> bytes | None:
    """Return a workload as it is kept, None for none. Raises Rejection (`payload_invalid`)."""
    if payload is None and ssh_public_key is None:
        return None
    if payload is not None and not payload.command and payload.image is None:
        raise Rejection("payload_invalid", "expected a command, an image or both", pointer="/payload/command")
    shown = None if payload is None else PayloadView(list(payload.command), payload.image, payload.env or {})
    content = _encode(WorkloadView(ssh_public_key, shown))
    if len(content) > WORKLOAD_BYTES_MAX:
        raise Rejection(
            "payload_invalid",
            f"expected at most {WORKLOAD_BYTES_MAX} bytes as JSON, found {len(content)}",
            pointer="/payload",
        )
    return content


def workload_view(content: bytes | None) -> WorkloadView:
    """Read what `content_of` wrote."""
    return WorkloadView() if content is None else _decode(content)
