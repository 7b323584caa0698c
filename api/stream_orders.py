"""Order entry on one WebSocket: many requests in flight, applied in the order in which they were sent.

Each message becomes commands at once, goes to the engine's inbox in its turn, and is answered when that
is durable; the next one is read meanwhile, so that one commit takes many. A command holds a place in
flight from reading to the writing of its answer; without a free place nothing more is read. Knows which
bids its session placed, so that they can end with it. Invariant: at most IN_FLIGHT_MAX places are held.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from api.auth import Principal
from api.codec import Codec
from api.errors import problem_of
from api.order_entry import (
    absent_bid,
    absent_notice,
    amending,
    batch_view,
    cancelling_all,
    command_of,
    placed_status,
    placing,
    require_change,
    shown,
    switch_view,
)
from api.rate_limits import BATCH_COST
from api.services import Services
from api.stream_writer import CLOSE_UNAUTHENTICATED, Closing, Writer
from api.wire import BatchView, BidView, notice_view
from api.wire_orders import (
    BidAmend,
    BidBatch,
    BidCancel,
    BidCancelAll,
    BidPlace,
    CancelAfterMessage,
    NoticeAck,
    OrderAck,
    OrderMessage,
)
from api.wire_stream import ClientId, error_of
from auction.commands import AckNotice, CancelAfter, CancelBid, Command, PlaceBid
from auction.core import Core
from auction.errors import Rejection, Unavailable
from auction.model import BID_FINAL, Bid
from auction.ports import Answer
from sql.scope import acting, tenant

IN_FLIGHT_MAX = 1_000  # commands of one connection
FORGET_ABOVE_BIDS = 1_000  # then bids that have ended are forgotten
CANCEL_COMMANDS_MAX = 1_000  # in one submission

EXITS = (BidCancel, BidCancelAll, CancelAfterMessage, NoticeAck)  # whatever gets a bot out

log = logging.getLogger(__name__)

Absent = Callable[[], Awaitable[Rejection | None]]


def _ok(_: Any) -> int:
    return 200


@dataclass(frozen=True, slots=True)
class _Order:
    """What a message asks: commands, how their outcome is shown, and what `not_found` may really be."""

    commands: Sequence[Command]
    view: Callable[[Any], Any]
    status: Callable[[Any], int] = _ok
    absent: Absent | None = None
    is_batch: bool = False
    is_atomic: bool = False


class OrderEntry:
    """The orders of one session."""

    def __init__(self, services: Services, codec: Codec, writer: Writer, session: str, address: str) -> None:
        self._services = services
        self._address = address
        self._codec = codec
        self._writer = writer
        self._session = session
        self._free = IN_FLIGHT_MAX
        self._freed = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self._placed: set[str] = set()
        self._undecided: dict[str, str] = {}  # bids on their way, and their markets
        self._forget_above = FORGET_ABOVE_BIDS

    async def submit(self, who: Principal, message: OrderMessage) -> None:
        """Have a message decided after all before it; return without waiting for the answer.

        Raises Closing when the key is no longer valid.
        """
        try:
            principal = await self._principal(who)
            self._charge(principal, message)
            with acting(tenant(principal.account)):
                order = await self._order(principal, message)
            places = min(max(1, len(order.commands)), IN_FLIGHT_MAX)
            await self._take(places)
        except Closing:
            raise
        except Exception as refusal:
            await self._writer.tell(self._refusal(message.id, refusal))
            return
        placed = {command.bid: command.market for command in order.commands if isinstance(command, PlaceBid)}
        self._remember(placed)
        # Tasks begin in the order made, and the first thing that this one does is to enter the inbox.
        with acting(tenant(principal.account)):
            task = asyncio.create_task(self._decide(message.id, order, places, placed))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def end(self, account: str | None, *, cancels: bool, releases: bool) -> None:
        """Wait until all that was sent is decided; with `cancels`, cancel what this session placed."""
        await asyncio.gather(*self._answering)
        if not cancels or account is None:
            return
        live = self._services.engine.core.bids
        left = sorted(
            (
                bid
                for name in self._placed
                if (bid := live.get(name)) is not None and bid.status not in BID_FINAL
            ),
            key=lambda bid: bid.seq,
        )
        commands = [CancelBid(bid.id, account, releases) for bid in left]
        try:
            for start in range(0, len(commands), CANCEL_COMMANDS_MAX):
                some = commands[start : start + CANCEL_COMMANDS_MAX]
                await self._services.engine.submit(some, encode=lambda _: Answer(204, "", b""))
        except Unavailable as outage:
            log.warning("session %s: its bids were not cancelled: %s", self._session, outage.detail)

    # -- from the message to the commands ------------------------------------------------------------

    async def _principal(self, who: Principal) -> Principal:
        try:
            principal = await self._services.authenticator.recheck(who, self._address)
        except Rejection:
            raise Closing(CLOSE_UNAUTHENTICATED, "the key is no longer valid") from None
        principal.require("bids:write")
        return principal

    def _charge(self, principal: Principal, message: OrderMessage) -> None:
        """Count a message as HTTP would; raises RateLimited."""
        limiter = self._services.limiter
        policy = limiter.policies.exits if isinstance(message, EXITS) else limiter.policies.requests
        limiter.take(policy, principal.key, BATCH_COST if isinstance(message, BidBatch) else 1)

    async def _order(self, principal: Principal, message: OrderMessage) -> _Order:
        services, account = self._services, principal.account
        match message:
            case BidPlace():
                command: Command = await placing(services, principal, message)
                return _Order([command], lambda placed: shown(self._core, placed.bid), placed_status)
            case BidAmend():
                require_change(message)
                command = await amending(services, principal, message.bid, message, message.version)
                return _Order(
                    [command], self._shown, absent=partial(absent_bid, services, account, message.bid)
                )
            case BidCancel():
                command = CancelBid(message.bid, account, message.release, message.version)
                return _Order(
                    [command], self._shown, absent=partial(absent_bid, services, account, message.bid)
                )
            case BidCancelAll():
                commands = self._cancelling_all(account, message)
                return _Order(commands, self._all_shown, is_batch=True)
            case BidBatch():
                commands = [await command_of(services, principal, one) for one in message.operations]
                return _Order(commands, self._batch_shown, is_batch=True, is_atomic=message.atomic)
            case CancelAfterMessage():
                return _Order([CancelAfter(account, message.timeout_seconds, message.release)], switch_view)
            case NoticeAck():
                command = AckNotice(message.notice, account, message.ready)
                absent = partial(absent_notice, services, account, message.notice)
                return _Order([command], notice_view, absent=absent)

    def _cancelling_all(self, account: str, message: BidCancelAll) -> list[Command]:
        """Return the cancels of the account's bids, also of those this session placed a moment ago."""
        commands = cancelling_all(self._core, account, message.market, message.release)
        undecided = (bid for bid, market in self._undecided.items() if market == message.market)
        return commands + [CancelBid(bid, account, message.release) for bid in undecided]

    # -- from the outcomes to the answer -------------------------------------------------------------

    async def _decide(self, client_id: ClientId, order: _Order, places: int, placed: dict[str, str]) -> None:
        try:
            encode = partial(self._encode, client_id, order)
            answer, _ = await self._services.engine.submit(
                order.commands, encode=encode, is_atomic=order.is_atomic
            )
            payload = answer.body
            if answer.status == 404 and order.absent is not None:
                absent = await order.absent()
                payload = payload if absent is None else self._refusal(client_id, absent)
        except Exception as refusal:
            payload = self._refusal(client_id, refusal)
        for bid in placed:
            self._undecided.pop(bid, None)
        self._writer.answer(payload, partial(self._give_back, places))

    def _encode(self, client_id: ClientId, order: _Order, outcomes: list[Any]) -> Answer:
        """Write the answer down at the moment of decision, as the objects then are."""
        outcome = outcomes if order.is_batch else outcomes[0]
        if isinstance(outcome, Rejection):
            problem = problem_of(outcome, self._session)
            body = self._codec.encode(error_of(problem, client_id))
            return Answer(problem.status, self._codec.content_type, body)
        status = order.status(outcome)
        body = self._codec.encode(OrderAck(client_id, status, order.view(outcome)))
        return Answer(status, self._codec.content_type, body)

    def _refusal(self, client_id: ClientId, refusal: Exception) -> bytes:
        return self._codec.encode(error_of(problem_of(refusal, self._session), client_id))

    def _shown(self, bid: Bid) -> BidView:
        return shown(self._core, bid)

    def _batch_shown(self, outcomes: list[Any]) -> BatchView:
        return batch_view(self._core, outcomes, self._session)

    def _all_shown(self, outcomes: list[Any]) -> BatchView:
        """Leave out bids that were refused or over before their cancel came."""
        return self._batch_shown([outcome for outcome in outcomes if not isinstance(outcome, Rejection)])

    # -- places in flight, bids of the session -------------------------------------------------------

    async def _take(self, places: int) -> None:
        """Take places in flight, in the order of asking: only the reader of the session asks."""
        while self._free < places:
            self._freed.clear()
            await self._freed.wait()
        self._free -= places

    def _give_back(self, places: int) -> None:
        self._free += places
        self._freed.set()

    def _remember(self, placed: dict[str, str]) -> None:
        self._undecided |= placed
        self._placed.update(placed)
        if len(self._placed) > self._forget_above:
            live = self._core.bids
            self._placed = {bid for bid in self._placed if bid in live or bid in self._undecided}
            self._forget_above = max(FORGET_ABOVE_BIDS, 2 * len(self._placed))

    @property
    def _core(self) -> Core:
        return self._services.engine.core  # another one after each recovery
