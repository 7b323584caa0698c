"""Order entry on one WebSocket: many requests in flight, applied in the order in which they were sent.

Each message becomes commands at once, goes to the engine's inbox in its turn, and is answered when that
is durable; the next one is read meanwhile, so that one commit takes many. Messages that came together go
together: a task and a future for each were a third of what a bid cost here. A command holds a place in
flight from reading to the writing of its answer; without a free place nothing more is read. Knows which
bids its session placed, so that they can end with it. Invariant: at most IN_FLIGHT_MAX places are held.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

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
from auction.bidding import PlacedBid
from auction.commands import AckNotice, CancelAfter, CancelBid, Command, PlaceBid
from auction.core import Core
from auction.errors import Rejection, Unavailable
from auction.model import BID_FINAL, Bid
from auction.ports import Answer
from sql.scope import acting, tenant

IN_FLIGHT_MAX = 1_000  # commands of one connection
FORGET_ABOVE_BIDS = 1_000  # then bids that have ended are forgotten
CANCEL_COMMANDS_MAX = 1_000  # in one submission
GROUP_ORDERS_MAX = 100  # then others have their turn in the engine's inbox

EXITS = (BidCancel, BidCancelAll, CancelAfterMessage, NoticeAck)  # whatever gets a bot out

log = logging.getLogger(__name__)

Absent = Callable[[], Awaitable[Rejection | None]]


_UNUSED = Answer(204, "", b"")  # the session writes each order's own


def _ok(_: Any) -> int:
    return 200


class _Order(Struct, frozen=True):
    """What a message asks: commands, how their outcome is shown, and what `not_found` may really be."""

    client_id: ClientId
    commands: Sequence[Command]
    view: Callable[[Any], Any]
    status: Callable[[Any], int] = _ok
    absent: Absent | None = None
    is_batch: bool = False
    is_atomic: bool = False


class _Group:
    """Orders that came together and are submitted as one; a batch stands alone."""

    __slots__ = ("orders", "places")

    def __init__(self) -> None:
        self.orders: list[_Order] = []
        self.places = 0


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
        self._gathering: _Group | None = None  # that the next order may still join
        self._answering: dict[asyncio.Task[None], None] = {}
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
        self._remember(order)
        group = self._gathering
        if group is None or order.is_batch or len(group.orders) >= GROUP_ORDERS_MAX:
            group = _Group()
            self._gathering = None if order.is_batch else group
            # Tasks begin in the order made, and the first thing that this one does is to enter the inbox.
            with acting(tenant(principal.account)):
                task = asyncio.create_task(self._decide(group))
            self._answering[task] = None
            task.add_done_callback(self._answering.pop)
        group.orders.append(order)
        group.places += places

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
                await self._services.engine.submit(some, encode=lambda _: _UNUSED)
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
        services, account, client_id = self._services, principal.account, message.id
        match message:
            case BidPlace():
                command: Command = await placing(services, principal, message)
                return _Order(client_id, [command], self._placed_shown, placed_status)
            case BidAmend():
                require_change(message)
                command = await amending(services, principal, message.bid, message, message.version)
                absent = partial(absent_bid, services, account, message.bid)
                return _Order(client_id, [command], self._shown, absent=absent)
            case BidCancel():
                command = CancelBid(message.bid, account, message.release, message.version)
                absent = partial(absent_bid, services, account, message.bid)
                return _Order(client_id, [command], self._shown, absent=absent)
            case BidCancelAll():
                commands = self._cancelling_all(account, message)
                return _Order(client_id, commands, self._all_shown, is_batch=True)
            case BidBatch():
                commands = [await command_of(services, principal, one) for one in message.operations]
                return _Order(client_id, commands, self._batch_shown, is_batch=True, is_atomic=message.atomic)
            case CancelAfterMessage():
                command = CancelAfter(account, message.timeout_seconds, message.release)
                return _Order(client_id, [command], switch_view)
            case NoticeAck():
                command = AckNotice(message.notice, account, message.ready)
                absent = partial(absent_notice, services, account, message.notice)
                return _Order(client_id, [command], notice_view, absent=absent)

    def _cancelling_all(self, account: str, message: BidCancelAll) -> list[Command]:
        """Return the cancels of the account's bids, also of those this session placed a moment ago."""
        commands = cancelling_all(self._core, account, message.market, message.release)
        undecided = (bid for bid, market in self._undecided.items() if market == message.market)
        return commands + [CancelBid(bid, account, message.release) for bid in undecided]

    # -- from the outcomes to the answer -------------------------------------------------------------

    async def _decide(self, group: _Group) -> None:
        if self._gathering is group:
            self._gathering = None
        orders = group.orders
        commands = [command for order in orders for command in order.commands]
        payloads: list[bytes] = []
        unknown: list[tuple[bytes, ClientId, Absent]] = []

        def encode(outcomes: list[Any]) -> Answer:
            of_orders = [outcomes] if orders[0].is_batch else outcomes
            for order, outcome in zip(orders, of_orders, strict=True):
                payload, status = self._encode(order, outcome)
                if status == 404 and order.absent is not None:
                    unknown.append((payload, order.client_id, order.absent))
                else:
                    payloads.append(payload)
            return _UNUSED

        try:
            await self._services.engine.submit(commands, encode=encode, is_atomic=orders[0].is_atomic)
        except Exception as refusal:
            unknown, payloads = [], [self._refusal(order.client_id, refusal) for order in orders]
        for command in commands:
            if isinstance(command, PlaceBid):
                self._undecided.pop(command.bid, None)
        # An order that stands alone may hold many places, one of several orders holds one.
        self._writer.answer(payloads, partial(self._give_back, group.places - len(unknown)))
        for payload, client_id, absent in unknown:
            explained = await self._explained(payload, client_id, absent)
            self._writer.answer([explained], partial(self._give_back, 1))

    def _encode(self, order: _Order, outcome: Any) -> tuple[bytes, int]:
        """Write the answer down at the moment of decision, as the objects then are; return its status too."""
        if isinstance(outcome, Rejection):
            problem = problem_of(outcome, self._session)
            return self._codec.encode(error_of(problem, order.client_id)), problem.status
        status = order.status(outcome)
        return self._codec.encode(OrderAck(order.client_id, status, order.view(outcome))), status

    async def _explained(self, payload: bytes, client_id: ClientId, absent: Absent) -> bytes:
        """Say what `not_found` really is, where the database knows more than the engine."""
        try:
            refusal: Exception | None = await absent()
        except Exception as failure:
            refusal = failure
        return payload if refusal is None else self._refusal(client_id, refusal)

    def _refusal(self, client_id: ClientId, refusal: Exception) -> bytes:
        return self._codec.encode(error_of(problem_of(refusal, self._session), client_id))

    def _placed_shown(self, placed: PlacedBid) -> BidView:
        return shown(self._core, placed.bid)

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

    def _remember(self, order: _Order) -> None:
        for command in order.commands:
            if isinstance(command, PlaceBid):
                self._undecided[command.bid] = command.market
                self._placed.add(command.bid)
        if len(self._placed) > self._forget_above:
            live = self._core.bids
            self._placed = {bid for bid in self._placed if bid in live or bid in self._undecided}
            self._forget_above = max(FORGET_ABOVE_BIDS, 2 * len(self._placed))

    @property
    def _core(self) -> Core:
        return self._services.engine.core  # another one after each recovery
