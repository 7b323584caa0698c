"""Whether commands would all be taken, tried on a copy of the little they can touch.

An atomic batch is decided twice: first on an excerpt of the state (its account, the bids it names with
their leases, and what else is on the nodes of those), and then, if nothing was refused there, on the state
itself. The rules are deterministic and look at nothing else, so the second pass refuses nothing. The copy
costs what the batch names, however much the account has.
"""

from collections.abc import Sequence

import msgspec

from auction.commands import AmendBid, CancelBid, Command, PlaceBid
from auction.ledger import CODES_PER_ACCOUNT, OPERATOR_NUMBER, ledger_account
from auction.ports import LiveState
from auction.state import State

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LiveState).decode


def excerpt(state: State, account: str, commands: Sequence[Command]) -> LiveState:
    """Copy what these commands of one account can touch: places, amendments and cancels of bids."""
    named = {command.bid for command in commands if isinstance(command, AmendBid | CancelBid)}
    own = [bid for name in sorted(named) if (bid := state.bids.get(name)) and bid.account == account]
    below = {lease.node for bid in own for lease in state.bid_leases[bid.id].values()}
    nodes = [state.nodes[name] for name in sorted(below)]
    leases = [lease for node in nodes for lease in state.node_leases[node.id].values()]
    bids = own + [
        state.bids[name] for name in sorted({lease.bid for lease in leases} - {bid.id for bid in own})
    ]
    offers = [state.offers[name] for name in sorted({lease.offer for lease in leases})]
    parties = state.parties(account) | {node.account for node in nodes} | {bid.account for bid in bids}
    accounts = [state.accounts[name] for name in sorted(parties)]
    placed = [command for command in commands if isinstance(command, PlaceBid)]
    wanted = {command.market for command in placed}
    wanted |= {choice.market for command in placed for choice in command.alternatives}
    wanted |= {market for bid in bids for market in bid.markets}
    markets = [state.markets[name] for name in sorted(wanted) if name in state.markets]
    scopes = {account} | {bid.key for bid in bids} | {getattr(command, "key", None) for command in commands}
    ledgers = [
        ledger_account(number, code)
        for number in [OPERATOR_NUMBER, *(one.number for one in accounts)]
        for code in range(CODES_PER_ACCOUNT)
    ]
    live = LiveState(
        seq=state.seq,
        accounts=accounts,
        markets=markets,
        nodes=nodes,
        offers=offers,
        bids=bids,
        leases=leases,
        notices=[state.notices[lease.notice] for lease in leases if lease.notice in state.notices],
        balances=[(one, state.balances[one]) for one in ledgers if one in state.balances],
        prices={market.id: state.books[market.id].prices for market in markets},
        next_bid_seq=state.next_bid_seq,
        next_offer_seq=state.next_offer_seq,
        limits=[state.limits[scope] for scope in sorted(filter(None, scopes)) if scope in state.limits],
        now_us=state.now_us,
    )
    return _decode(_encode(live))


def count_as(rehearsed: State, state: State) -> None:
    """Let the excerpt count what it leaves out: other bids, offers and uses of limits."""
    parties = set(rehearsed.accounts)
    for counts, actual in (
        (rehearsed.live_bid_counts, state.live_bid_counts),
        (rehearsed.live_offer_counts, state.live_offer_counts),
    ):
        counts.clear()
        for party in parties:
            for market in rehearsed.markets:
                if (count := actual.get((party, market))) is not None:
                    counts[party, market] = count
    for scope, use in rehearsed.limit_uses.items():
        use.notional, use.held = state.limit_uses[scope].notional, state.limit_uses[scope].held
