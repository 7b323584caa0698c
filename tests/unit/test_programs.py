"""Welfare of tiny books against every possible choice, and the solver's programs against the same.

The brute force below tries all sets of gangs and all ways to put them on machines, and knows neither
the scan of the auction nor the chain lemma nor a linear program. What needs HiGHS is skipped without it.
"""

import random
from itertools import combinations, product

import numpy as np
import pytest

from bench import programs
from matching import reference

CASES = 150
LEVEL_COUNT = 1000
DOMAIN_NODES = 2

# (limit, gpus, min_gpus, co-located) and (reserve, gpus, domain): plain tuples, best read in a table.
Bid = tuple[int, int, int, bool]
Offer = tuple[int, int, int]


def best_welfare(bids: list[Bid], offers: list[Offer]) -> int:
    """Return the optimum, in level x GPUs, by trying every set of gangs in every place."""
    gangs = [bid for bid in bids if bid[2] > 1]
    wishes = sorted((bid[0] for bid in bids if bid[2] == 1 for _ in range(bid[1])), reverse=True)
    best = 0
    for count in range(len(gangs) + 1):
        for chosen in combinations(gangs, count):
            value = sum(limit * gpus for limit, gpus, _, _ in chosen)
            fixed = sorted((gpus for _, gpus, _, colocated in chosen if colocated), reverse=True)
            anywhere = sum(gpus for _, gpus, _, colocated in chosen if not colocated)
            for free, cost in placements(fixed, offers):
                units = sorted(
                    offer[0] for offer, left in zip(offers, free, strict=True) for _ in range(left)
                )
                if len(units) >= anywhere:
                    rest = zip(wishes, units[anywhere:], strict=False)
                    served = sum(max(0, limit - reserve) for limit, reserve in rest)
                    best = max(best, value - cost - sum(units[:anywhere]) + served)
    return best


def placements(sizes: list[int], offers: list[Offer]) -> set[tuple[tuple[int, ...], int]]:
    """Return every (free GPUs of each machine, cost) that placing the co-located sizes can leave."""
    states = {(tuple(gpus for _, gpus, _ in offers), 0)}
    for size in sizes:
        states = {after for state in states for after in _with_one_more(size, offers, *state)}
    return states


def _with_one_more(size, offers, free, cost):
    if size <= 8:
        for node in range(len(offers)):
            if free[node] >= size:
                yield _without(free, {node: size}), cost + size * offers[node][0]
        return
    blocks = [node for node in range(len(offers)) for _ in range(free[node] // 8) if offers[node][2] >= 0]
    for taken in set(combinations(blocks, size // 8)):
        if len({offers[node][2] for node in taken}) == 1:
            used = {node: 8 * taken.count(node) for node in taken}
            yield _without(free, used), cost + sum(8 * offers[node][0] for node in taken)


def _without(free, used):
    return tuple(left - used.get(node, 0) for node, left in enumerate(free))


def draw(seed: int, *, colocated: bool) -> tuple[list[Bid], list[Offer]]:
    """Return a book of up to 6 bids and 4 machines; with co-location some machines are broken."""
    dice = random.Random(seed)
    bids: list[Bid] = []
    for _ in range(dice.randint(1, 6)):
        gpus = dice.choice((1, 2, 4, 8, 16) if colocated else (1, 2, 3, 4, 5, 8))
        is_gang = gpus > 1 and dice.random() < 0.8
        bids.append(
            (dice.randint(1, 60), gpus, gpus if is_gang else 1, is_gang and colocated and dice.random() < 0.9)
        )
    machine = (8, 8, 8, 16, 3, 7, 11) if colocated else (1, 2, 3, 5)
    offers = [
        (dice.randint(0, 40), dice.choice(machine), dice.choice((node // DOMAIN_NODES, 0, -1)))
        for node in range(dice.randint(1, 4))
    ]
    return bids, offers


def clear(bids: list[Bid], offers: list[Offer], *, refine_below_bids: int = 0):
    """Clear the book with the reference; return the clearing and the fill of each bid."""
    book = reference.Book(handicap_bps=0, level_count=LEVEL_COUNT, refine_below_bids=refine_below_bids)
    for node, (reserve, gpus, domain) in enumerate(offers):
        book.place_offer(reserve, gpus, node, domain)
    handles = [
        book.place_bid(limit, gpus, min_gpus, 0, number, number, colocated)
        for number, (limit, gpus, min_gpus, colocated) in enumerate(bids)
    ]
    clearing = book.clear()
    fills = dict(zip(clearing.handles.tolist(), clearing.fills.tolist(), strict=True))
    return clearing, [fills.get(handle, 0) for handle in handles]


def as_arrays(bids: list[Bid], offers: list[Offer]) -> tuple[programs.Bids, programs.Offers]:
    limits, gpus, min_gpus, colocated = zip(*bids, strict=True)
    reserves, machine_gpus, domains = zip(*offers, strict=True)
    whole = [np.array(column, dtype=np.int64) for column in (limits, gpus, min_gpus)]
    return (
        programs.Bids(*whole, np.array(colocated, dtype=bool)),
        programs.Offers(*(np.array(column, dtype=np.int64) for column in (reserves, machine_gpus, domains))),
    )


@pytest.mark.parametrize("refine_below_bids", [0, 200])
@pytest.mark.parametrize("seed", range(CASES))
def test_welfare_is_at_most_the_optimum_and_that_at_most_the_lp_bound(seed, refine_below_bids):
    """I15, with the optimum by brute force; gangs may lie anywhere."""
    bids, offers = draw(seed, colocated=False)
    clearing, _ = clear(bids, offers, refine_below_bids=refine_below_bids)
    assert clearing.value - clearing.cost <= best_welfare(bids, offers) <= clearing.lp_bound


@pytest.mark.parametrize("seed", range(CASES))
def test_divisible_bids_reach_the_optimum(seed):
    """I12: without gangs the clearing, the optimum and the LP bound are one number."""
    bids, offers = draw(seed, colocated=False)
    bids = [(limit, gpus, 1, False) for limit, gpus, _, _ in bids]
    clearing, _ = clear(bids, offers)
    assert best_welfare(bids, offers) == clearing.value - clearing.cost == clearing.lp_bound


@pytest.mark.parametrize("seed", range(CASES))
def test_accepted_gangs_can_be_placed_and_gain_at_most_the_optimum(seed):
    """I17: there is a place for what was accepted; at its real cost it is no better than the optimum."""
    bids, offers = draw(seed, colocated=True)
    clearing, fills = clear(bids, offers)
    winners = [(limit, fill, fill, colocated) for (limit, _, _, colocated), fill in
               zip(bids, fills, strict=True) if fill]  # fmt: skip
    fixed = sorted((gpus for _, gpus, _, colocated in winners if colocated), reverse=True)
    anywhere = sum(gpus for _, gpus, _, colocated in winners if not colocated)
    costs = [
        cost + sum(sorted(reserve for (reserve, _, _), left in zip(offers, free, strict=True)
                          for _ in range(left))[:anywhere])
        for free, cost in placements(fixed, offers) if sum(free) >= anywhere
    ]  # fmt: skip
    assert costs, "accepted, but no place for it"
    assert clearing.cost <= min(costs)
    assert clearing.value - min(costs) <= best_welfare(bids, offers) <= clearing.lp_bound


@pytest.mark.parametrize("seed", range(0, CASES, 3))
def test_programs_have_the_optimum_of_brute_force(seed):
    """The programs that the quality benchmark trusts, each against every possible choice."""
    pytest.importorskip("highspy")
    for colocated, formulations in ((False, ("gangs", "gangs_by_bid", "packed")), (True, ("packed",))):
        bids, offers = draw(seed, colocated=colocated)
        expected = best_welfare(bids, offers)
        for name in formulations:
            solution = programs.solve(getattr(programs, name)(*as_arrays(bids, offers)), time_limit_s=60)
            assert solution.is_optimal
            assert expected == round(solution.value) == round(solution.bound), name


@pytest.mark.parametrize("seed", range(0, CASES, 3))
def test_a_bid_with_one_alternative_is_a_bid_of_that_market(seed):
    """Substitutes without a choice are separate markets: their optima and LP bounds add up."""
    pytest.importorskip("highspy")
    markets = [draw(2 * seed + number, colocated=False) for number in range(2)]
    wishes, offers, offer_markets = _joined(markets)
    for whole in (False, True):
        program = programs.substitutes(wishes, offers, offer_markets, whole=whole)
        expected = sum(best_welfare(*m) if whole else clear(*m)[0].lp_bound for m in markets)
        assert expected == round(programs.solve(program, time_limit_s=60).value)


def test_a_bid_is_served_in_one_of_its_alternatives_only():
    """Two markets with 2 GPUs each at reserve 1, one bid for 2 GPUs worth 9 or 8: the better one."""
    pytest.importorskip("highspy")
    numbers = [np.array(column, dtype=np.int64) for column in ([2], [2], [0, 0], [0, 1], [9, 8])]
    offers = programs.Offers(*(np.array(column, dtype=np.int64) for column in ([1, 1], [2, 2], [-1, -1])))
    for whole in (False, True):
        program = programs.substitutes(programs.Alternatives(*numbers), offers, np.array([0, 1]), whole=whole)
        assert 16 == round(programs.solve(program, time_limit_s=60).value)


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 3)], ids=["one GPU", "gangs"])
@pytest.mark.parametrize("seed", range(30))
def test_substitutes_have_the_optimum_of_brute_force(seed, sizes):
    """Every bid in each of its markets or in none: with one GPU a bid the LP is exact as well."""
    pytest.importorskip("highspy")
    dice = random.Random(seed)
    machines = [(dice.randint(0, 30), dice.randint(1, 3), market) for market in (0, 1, 2) for _ in range(2)]
    bids = [(dice.choice(sizes), dice.sample(range(3), dice.randint(1, 3))) for _ in range(5)]
    wishes = [
        (bid, market, dice.randint(1, 60)) for bid, (_, markets) in enumerate(bids) for market in markets
    ]
    best = 0
    for choice in product(
        *([None, *(wish for wish in wishes if wish[0] == bid)] for bid in range(len(bids)))
    ):
        best = max(best, _welfare_of([wish for wish in choice if wish], bids, machines))
    gpus = np.array([size for size, _ in bids], dtype=np.int64)
    offers = as_arrays([(1, 1, 1, False)], [(reserve, count, -1) for reserve, count, _ in machines])[1]
    numbers = [np.array(column, dtype=np.int64) for column in zip(*wishes, strict=True)]
    markets = np.array([market for _, _, market in machines], dtype=np.int64)
    for whole in (True, False) if sizes == (1,) else (True,):
        program = programs.substitutes(
            programs.Alternatives(gpus, gpus, *numbers), offers, markets, whole=whole
        )
        assert best == round(programs.solve(program, time_limit_s=60).value)


def _welfare_of(choice, bids, machines):
    """Welfare of serving these (bid, market, limit), or minus infinity where the GPUs do not suffice."""
    welfare = 0
    for market in (0, 1, 2):
        units = sorted(reserve for reserve, count, place in machines if place == market for _ in range(count))
        wanted = [(limit, bids[bid][0]) for bid, place, limit in choice if place == market]
        sold = sum(gpus for _, gpus in wanted)
        if sold > len(units):
            return float("-inf")
        welfare += sum(limit * gpus for limit, gpus in wanted) - sum(units[:sold])
    return welfare


def _joined(markets):
    bids = [(bid, market) for market, (bids, _) in enumerate(markets) for bid in bids]
    offers = [(offer, market) for market, (_, offers) in enumerate(markets) for offer in offers]
    own, machines = as_arrays([bid for bid, _ in bids], [offer for offer, _ in offers])
    places = np.array([market for _, market in bids], dtype=np.int64)
    wishes = programs.Alternatives(own.gpus, own.min_gpus, np.arange(len(bids)), places, own.limits)
    return wishes, machines, np.array([market for _, market in offers], dtype=np.int64)
