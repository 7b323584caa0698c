"""What a user installs: the command line, the demo, the node agent, and the client."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fallow.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: the command line is quicker without it."""
    if name in __all__:
        import fallow.client

        return getattr(fallow.client, name)
    raise AttributeError(name)
