"""The reads that the simulated routes use, over the rows of the storage twin: `Reader`'s words, no SQL.

Only committed rows are seen, one account's at a time where `Reader` says so. What is not here is outside of
the simulation and raises AttributeError or AssertionError, never an empty answer.
`tests/integration/test_read_twin.py` asks both the same questions over the same commits.
"""

import msgspec

from auction.ledger import CUSTOMER_CODES, ledger_account
from auction.model import Account, ApiKey, Bid, Lease, LeaseState, Market, Node, NodeState, Notice
from auction.state import Balance
from sql import query
from sql.reads import INT64_MAX, NEWEST, BidRow, Head, LeaseRow, Slice


class ReadTwin:
    """Reads over one shard; `trip` is what a question costs, and what fails when the database is down."""

    def __init__(self, shard, trip):
        self._shard = shard
        self._trip = trip

    async def _rows(self, struct, chosen):
        await self._trip()
        return [_copy(row) for row in self._shard.rows[struct].values() if chosen(row)]

    async def _one(self, struct, chosen):
        return next(iter(await self._rows(struct, chosen)), None)

    async def _named(self, struct, name, whose, account):
        await self._trip()
        row = self._shard.rows[struct].get(name)
        return None if row is None or getattr(row, whose) != account else _copy(row)

    # -- public ------------------------------------------------------------------------------------

    async def markets(self):
        return sorted(await self._rows(Market, lambda _: True), key=lambda market: market.id)

    async def market(self, market):
        return await self._named(Market, market, "id", market)

    async def tick(self, market, tick):
        await self._trip()
        last = INT64_MAX if tick is None else tick
        found = [row for row in self._shard.ticks.get(market, [])[-1:] if row.tick <= last]
        if tick is not None:
            found = [row for row in self._shard.ticks.get(market, []) if row.tick == tick]
        return found[-1] if found else None

    # -- buyers ------------------------------------------------------------------------------------

    async def bid(self, account, bid):
        return self._bid_row(await self._named(Bid, bid, "account", account))

    async def bid_by_client_id(self, account, client_bid_id):
        named = (account, client_bid_id)
        return self._bid_row(await self._one(Bid, lambda row: (row.account, row.client_bid_id) == named))

    async def bids(self, account, *, market, status, before_seq, limit):
        found = await self._rows(
            Bid,
            lambda row: (
                row.account == account
                and row.seq < before_seq
                and market in (None, row.market)
                and status in (None, row.status.value)
            ),
        )
        found.sort(key=lambda row: -row.seq)
        return Slice.of([self._bid_row(row) for row in found[: limit + 1]], limit)

    async def lease(self, account, lease):
        return self._lease_row(await self._named(Lease, lease, "account", account))

    async def leases(self, account, *, bid, market, state, before, limit):
        found = await self._rows(
            Lease,
            lambda row: (
                row.account == account
                and (row.awarded_at_us, row.id) < before
                and bid in (None, row.bid)
                and market in (None, row.market)
                and state in (None, row.state.value)
            ),
        )
        found.sort(key=lambda row: (row.awarded_at_us, row.id), reverse=True)
        return Slice.of([self._lease_row(row) for row in found[: limit + 1]], limit)

    async def notice(self, account, notice):
        return await self._named(Notice, notice, "account", account)

    async def notices(self, account, *, state, before=NEWEST, limit):
        found = await self._rows(
            Notice,
            lambda row: (
                row.account == account
                and (row.issued_at_us, row.id) < before
                and state in (None, row.state.value)
            ),
        )
        found.sort(key=lambda row: (row.issued_at_us, row.id), reverse=True)
        return Slice.of(found[: limit + 1], limit)

    # -- owners ------------------------------------------------------------------------------------

    async def desired(self, account, node):
        await self._trip()
        rows = self._shard.rows
        nodes = [
            row
            for row in rows[Node].values()
            if row.account == account and node in (None, row.id) and row.state is not NodeState.RETIRED
        ]
        ids = {row.id for row in nodes}
        shown = (LeaseState.STARTING, LeaseState.RUNNING, LeaseState.NOTICED)
        leases = [row for row in rows[Lease].values() if row.node in ids and row.state in shown]
        notices = [
            row
            for lease in leases
            if (row := rows[Notice].get(lease.notice)) is not None and row.closed_at_us is None
        ]
        return tuple(
            sorted((_copy(row) for row in some), key=lambda row: row.id) for some in (nodes, leases, notices)
        )

    async def workloads(self, bids):
        await self._trip()
        found = {bid: self._shard.rows[Bid].get(bid) for bid in bids}
        return {
            bid: self._shard.workloads[row.account, row.workload]
            for bid, row in found.items()
            if row is not None and row.workload is not None
        }

    async def owned_lease(self, account, lease):
        return await self._named(Lease, lease, "owner", account)

    # -- accounts and money ------------------------------------------------------------------------

    async def key_by_public_id(self, public_id):
        return await self._one(ApiKey, lambda row: public_id in (row.public_id, row.previous_public_id))

    async def account(self, account):
        return await self._named(Account, account, "id", account)

    async def balance(self, account):
        await self._trip()
        number = self._shard.rows[Account][account].number
        balances = [self._shard.balances[ledger_account(number, code)] for code in CUSTOMER_CODES]
        leases = (row for row in self._shard.rows[Lease].values() if row.account == account)
        return Balance(*balances), sum(lease.metered - lease.settled for lease in leases)

    async def events_after(self, account, after_seq, limit):
        await self._trip()
        own = (event for event in self._shard.events if event.account == account)
        return [event for event in own if event.account_seq > after_seq][:limit]

    async def fetch(self, statement, *arguments):
        """The one statement of another file that placing a bid asks: the market's median price."""
        await self._trip()
        assert statement == query("price_quantile"), f"outside of the simulation: {statement[:80]}"
        market, since_us, least, quantile = arguments
        traded = (tick for tick in self._shard.ticks.get(market, []) if tick.price is not None)
        prices = sorted(tick.price for tick in traded if tick.cleared_at_us >= since_us)
        if len(prices) < least:
            return [{"price": None}]
        place = max(1, -(-len(prices) * int(quantile * 1_000_000) // 1_000_000))
        return [{"price": prices[place - 1]}]

    # -- how ---------------------------------------------------------------------------------------

    def _head(self, market):
        row = self._shard.rows[Market][market]
        return Head(row.price, row.tick, row.next_tick_at_us, row.fee_bps)

    def _bid_row(self, bid):
        if bid is None:
            return None
        live = [
            row
            for row in self._shard.rows[Lease].values()
            if row.bid == bid.id and row.state is not LeaseState.ENDED
        ]
        live.sort(key=lambda row: (row.awarded_at_us, row.id))
        return BidRow(bid, self._head(bid.market), [row.id for row in live])

    def _lease_row(self, lease):
        return None if lease is None else LeaseRow(lease, self._head(lease.market))


class AuditLogTwin:
    """What was changed outside of the auction's flow, and by whom: appended, never read here."""

    def __init__(self, acts, trip):
        self.acts = acts
        self._trip = trip

    @property
    def head(self):
        return None  # it has no hashes

    async def read_head(self, reader):
        await self._trip()

    async def append(self, act):
        await self._trip()
        self.acts.append(act)


class NoTargets:
    """The target runner's store where nobody has a target: targets are outside of the simulation."""

    async def unsettled(self):
        return []


class NoSql:
    """The pool that the application is built with: nothing of it may be used."""

    def fixed(self, scope):
        return self

    def __getattr__(self, name):
        raise AssertionError(f"a statement of SQL was about to run in the simulation ({name})")


def _copy(row):
    return msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=type(row))
