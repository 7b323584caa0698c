"""The account's events by request: the way to catch up without a socket, in order, with a long poll.

The same objects as the account channel and the webhooks. What was looked through is told with each
answer, so that asking again never reads the same events twice and never misses one.
"""

from contextlib import suppress
from typing import Annotated

from msgspec import Meta, Struct

from api.call import Call, Reply
from api.events import EventView, event_view
from api.fields import EventSeq, PageLimit, WaitSeconds
from api.routes import NoBody, route
from auction.errors import Rejection
from auction.model import Event
from sql.event_reads import events_of

TypesField = Annotated[str, Meta(max_length=640, pattern=r"^[a-z_.]{1,40}(,[a-z_.]{1,40}){0,15}$")]


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`types` are at most 16 words or kinds, such as `lease,bid.outbid`; left out, all are told."""

    after: EventSeq = 0
    types: TypesField | None = None
    wait_seconds: WaitSeconds = 0
    limit: PageLimit = 50


class EventsView(Struct, frozen=True):
    """Events oldest first. Pass `next_after` as `after` to go on; it also passes over types not asked for."""

    data: list[EventView]
    next_after: int


@route("GET", "/v1/events", scope="bids:read or supply:read")
async def list_events(call: Call[NoBody, EventsQuery]) -> Reply[EventsView]:
    """List your events behind `after`, oldest first; or wait for the next one."""
    query, services = call.query, call.services
    # Listening starts before the first look: what is committed in between wakes the wait.
    subscription = services.listen(call.account)
    try:
        events, seen = await _look(call, query.after)
        with suppress(TimeoutError):
            async with services.patience(query.wait_seconds):
                while not events and query.wait_seconds:
                    await subscription.next()
                    events, seen = await _look(call, seen)
        return call.reply(EventsView([event_view(event, call.core) for event in events], seen))
    finally:
        services.engine.publisher.unsubscribe(subscription)


async def _look(call: Call[NoBody, EventsQuery], after: int) -> tuple[list[Event], int]:
    """Return one page, and up to which sequence number nothing more is to be found."""
    query, reader = call.query, call.services.reader
    # The head is read first: what is committed between the two reads is in the page, or behind the head.
    stored = await reader.account(call.account)
    head = stored.event_seq if stored is not None else 0
    if after > head:
        raise Rejection("invalid_value", f"expected at most {head}", pointer="/after")
    types = query.types.split(",") if query.types is not None else []
    events = await events_of(reader, call.account, after_seq=after, types=types, limit=query.limit)
    if len(events) == query.limit:
        return events, events[-1].account_seq
    return events, max(head, events[-1].account_seq if events else after)
