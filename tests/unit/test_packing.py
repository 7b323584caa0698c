"""Placement (I17): the cheapest units are sold, tenants stay where they run, and it never fails."""

from hypothesis import given, settings
from hypothesis import strategies as st

from matching import book
from matching.packing import Fill, OfferUnits, place, sold_by_offer
from tests.property.worlds import any_bids, book_of, fills_of, named, node_offers


def test_cheapest_units_are_sold_first():
    assert {1: 4, 2: 1} == sold_by_offer([OfferUnits(9, 2, 4), OfferUnits(5, 1, 4)], 5, {})


def test_between_equal_reserves_the_occupied_units_are_sold():
    assert {2: 2} == sold_by_offer([OfferUnits(5, 1, 4), OfferUnits(5, 2, 4)], 2, {2: 2})


def test_a_tenant_stays_where_it_runs():
    placed = place([Fill(1, 2), Fill(2, 2)], [OfferUnits(5, 1, 2), OfferUnits(5, 2, 2)], {(2, 1): 2}, {})
    assert {(2, 1): 2, (1, 2): 2} == placed


def test_a_tenant_on_a_unit_that_is_not_sold_is_moved():
    assert {(1, 1): 2} == place([Fill(1, 2)], [OfferUnits(5, 1, 2), OfferUnits(9, 2, 2)], {(1, 2): 2}, {})


def test_a_new_bid_takes_the_smallest_offer_that_holds_it():
    assert {(1, 2): 4, (2, 1): 8} == place(
        [Fill(1, 4), Fill(2, 8)], [OfferUnits(5, 1, 8), OfferUnits(5, 2, 4)], {}, {}
    )


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), min_size=1, max_size=8),
    st.lists(st.integers(1, 6), max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 4)), max_size=8),
)
def test_placement_never_fails_and_never_sells_a_unit_twice(offers, fills, held):
    numbered = [OfferUnits(reserve, number, gpus) for number, (reserve, gpus) in enumerate(offers)]
    left = sum(gpus for _, gpus in offers)
    wanted = []
    for bid, gpus in enumerate(fills):
        if gpus <= left:
            wanted.append(Fill(bid, gpus))
            left -= gpus
    placed = place(wanted, numbered, {(bid, offer): gpus for bid, offer, gpus in held}, {})
    for bid, gpus, _ in wanted:
        assert gpus == sum(n for (who, _), n in placed.items() if who == bid)
    for _, number, gpus, _, _ in numbered:
        assert sum(n for (_, offer), n in placed.items() if offer == number) <= gpus
    sold = sum(gpus for _, gpus, _ in wanted)
    units = sorted(reserve for reserve, _, gpus, _, _ in numbered for _ in range(gpus))
    used = sorted(numbered[offer][0] for (_, offer), n in placed.items() for _ in range(n))
    assert units[:sold] == used


def gang(bid, gpus):
    return Fill(bid, gpus, True)


def units(reserve, number, gpus, node, domain=None):
    return OfferUnits(reserve, number, gpus, node, domain)


def test_a_gang_lies_on_one_machine_the_cheapest_with_room_then_the_tightest():
    offers = [units(5, 1, 8, "a"), units(5, 2, 4, "b"), units(4, 3, 2, "c"), units(9, 4, 4, "d")]
    assert {(1, 2): 4} == place([gang(1, 4)], offers, {}, {})


def test_a_tenant_makes_room_for_a_gang_only_if_the_gang_fits_nowhere_else():
    """Bid 1 runs on half of machine a; a gang of eight needs a whole machine."""
    held = {(1, 1): 4}
    both = [units(5, 1, 8, "a"), units(5, 2, 8, "b")]
    assert {(1, 1): 4, (2, 2): 8} == place([Fill(1, 4), gang(2, 8)], both, held, {})
    only = [units(5, 1, 8, "a"), units(5, 2, 4, "b")]
    assert {(1, 2): 4, (2, 1): 8} == place([Fill(1, 4), gang(2, 8)], only, held, {})


def test_a_large_gang_takes_whole_machines_of_one_domain():
    offers = [units(5, 1, 8, "a", "east"), units(4, 2, 8, "b", "west"), units(6, 3, 8, "c", "east")]
    assert {(1, 1): 8, (1, 3): 8} == place([gang(1, 16)], offers, {}, {})


@settings(max_examples=300, deadline=None)
@given(st.lists(any_bids, max_size=12), st.lists(node_offers, min_size=1, max_size=8), st.integers(0, 3))
def test_whatever_the_clearing_accepts_can_be_placed(bids, offers, leaving):
    """I17, tick after tick: gangs together, nobody moved without need, nothing above the floor."""
    bids = named(bids)
    made, handles = book_of(book, bids, offers, handicap_bps=1000)
    machines = [
        units(
            offer.reserve,
            number,
            offer.gpus,
            f"n{offer.node}",
            None if offer.domain < 0 else f"d{offer.domain}",
        )
        for number, offer in enumerate(offers)
    ]
    held = {}
    for _ in range(3):
        clearing = made.clear()
        fills = fills_of(made, handles)
        winners = [Fill(bid.name, fills[bid.name], bid.colocated) for bid in bids if fills.get(bid.name)]
        placed = place(winners, machines, held, {})
        assert place(winners, machines, placed, {}) == placed, "nobody is moved without need"
        for number, offer in enumerate(offers):
            sold = sum(gpus for (_, at), gpus in placed.items() if at == number)
            assert sold <= offer.gpus and (sold == 0 or offer.reserve <= clearing.floor)
        for fill in winners:
            on = [(machines[at], gpus) for (bid, at), gpus in placed.items() if bid == fill.bid]
            assert sum(gpus for _, gpus in on) == fill.gpus
            if fill.is_colocated:
                by_node = {}
                for machine, gpus in on:
                    by_node[machine.node] = by_node.get(machine.node, 0) + gpus
                if fill.gpus <= 8:
                    assert len(by_node) == 1
                else:
                    assert all(gpus % 8 == 0 for gpus in by_node.values())
                    assert len({machine.domain for machine, _ in on}) == 1 and on[0][0].domain
        for name, handle in handles.items():
            made.set_held(handle, fills[name])
        for name in sorted(handles)[:leaving]:
            made.cancel_bid(handles.pop(name))
        held = {key: gpus for key, gpus in placed.items() if key[0] in handles}
