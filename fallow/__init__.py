"""What a user installs: the command line, the demo, the node agent, the client, and the bot kit."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fallow.client import AsyncClient, Client
    from fallow.kit.strategy import Strategy

__all__ = ["AsyncClient", "Client", "Strategy"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: the command line is quicker without it."""
    if name == "Strategy":
        from fallow.kit.strategy import Strategy

        return Strategy
    if name in __all__:
        import fallow.client

        return getattr(fallow.client, name)
    raise AttributeError(name)
