"""A market's tick as every reader gets it: written once in each codec, with the whole curve of its time."""

from api.codec import Codec
from api.markets import curve_view
from api.services import Services
from api.wire_market import tick_view
from api.wire_stream import TickMessage
from auction.model import Tick

MARKET_PREFIX = "market:"


def tick_message(services: Services, codec: Codec, tick: Tick) -> tuple[str, bytes]:
    """Return the tick's channel and its message."""
    channel, name = f"{MARKET_PREFIX}{tick.market}", (tick.market, codec.content_type)
    known = services.tick_messages.get(name)
    if known is not None and known[0] == tick.tick:
        return channel, known[1]
    curve = curve_view(services.engine.core.curve(tick.market))
    head = services.audit_log.head
    payload = codec.encode(TickMessage(channel, tick.tick, tick_view(tick), curve, head))
    services.tick_messages[name] = (tick.tick, payload)
    return channel, payload
