"""The demo's world is the real data's: reserves, markets, price levels, and one seed, one world."""

import csv
import gzip
from importlib import resources
from statistics import median_low

import pytest

from auction.units import gross_reserve, parse_microusd
from fallow.dice import Dice
from fallow.world import (
    FEE_BPS,
    HOURS,
    LIMIT_PERCENT,
    PRICE_CAP,
    PRICE_INCREMENT,
    draw_limit,
    make_world,
)

DATA = resources.files("fallow").joinpath("data")
WORLD = make_world()


def rows(name):
    return list(csv.DictReader(gzip.decompress(DATA.joinpath(name).read_bytes()).decode().splitlines()))


def machine_rows():
    return {row["machine"]: row for row in rows("offers.csv.gz")}


def test_reserves_are_the_minimum_bids_of_the_data():
    """Up to the market's increment, upwards: an owner never gets less than it asked for."""
    recorded = machine_rows()
    for machine in WORLD.machines:
        row = recorded[machine.name]
        assert machine.gpus == int(row["gpus"])
        assert machine.host == row["host"]
        assert 0 <= machine.reserve - parse_microusd(row["reserve"]) < PRICE_INCREMENT
        assert machine.reserve % PRICE_INCREMENT == 0


def test_no_machine_is_there_twice():
    names = [machine.name for machine in WORLD.machines]
    assert len(names) == len(set(names)) == len({machine.id for machine in WORLD.machines})


def test_every_market_has_supply_that_it_can_sell_and_a_price_level_for_each_hour():
    assert 5 <= len(WORLD.venues) <= 8
    for venue in WORLD.venues:
        assert len(venue.machines) >= 5
        assert venue.gpus == sum(machine.gpus for machine in venue.machines) > 0
        assert len(venue.levels) == HOURS
        assert all(0 < level < PRICE_CAP for level in venue.levels)
        for machine in venue.machines:
            gross = gross_reserve(machine.reserve, fee_bps=FEE_BPS, increment=PRICE_INCREMENT)
            assert machine.market == venue.id and gross <= PRICE_CAP


def test_price_levels_are_the_posted_medians_or_the_offers_own_on_demand_prices():
    posted = {}
    for row in rows("list_prices.csv.gz"):
        posted.setdefault(row["market"], []).append(parse_microusd(row["median"]))
    recorded = machine_rows()
    for venue in WORLD.venues:
        slug = venue.id.split(".")[0]
        on_demand = median_low(
            parse_microusd(recorded[machine.name]["on_demand"]) for machine in venue.machines
        )
        assert list(venue.levels) == posted.get(slug, [on_demand] * HOURS)[-HOURS:]
    assert {"h100-sxm", "h200-sxm"} <= set(posted)


@pytest.mark.parametrize("venue", WORLD.venues, ids=lambda venue: venue.id)
def test_supply_and_demand_meet(venue):
    """Some buyers' limits are above some owners' reserves, or nothing would ever trade."""
    dice = Dice(1, "limits")
    limits = [draw_limit(dice, style, level) for style in sorted(LIMIT_PERCENT) for level in venue.levels]
    assert all(limit % PRICE_INCREMENT == 0 and 0 < limit <= PRICE_CAP for limit in limits)
    cheapest = min(
        gross_reserve(machine.reserve, fee_bps=FEE_BPS, increment=PRICE_INCREMENT)
        for machine in venue.machines
    )
    assert sorted(limits)[len(limits) // 2] > cheapest


def test_one_seed_is_one_world():
    assert make_world(7) == make_world(7)
    assert make_world(7) != make_world(8)
    draws = [Dice(7, "a").below(1 << 40) for _ in range(2)]
    assert draws[0] == draws[1] != Dice(7, "b").below(1 << 40)


def test_dice_stay_in_their_bounds():
    dice = Dice(3)
    assert {dice.between(2, 4) for _ in range(200)} == {2, 3, 4}
    assert {dice.around(0, 2) for _ in range(200)} == {0, 1, 2}
    assert all(not dice.happens(0) and dice.happens(100) for _ in range(50))


def test_the_extract_is_small_and_names_its_sources():
    units = {"fallow-agent.service", "fallow-server.service"}
    files = {entry.name: len(entry.read_bytes()) for entry in DATA.iterdir() if entry.name not in units}
    assert set(files) == {"NOTICE.md", "offers.csv.gz", "list_prices.csv.gz"}
    assert sum(files.values()) < 60_000
    notice = DATA.joinpath("NOTICE.md").read_text()
    for words in ("CCIR — Compute Credit Index Research", "CC BY 4.0", "Piotr Mazurek", "MIT", "AS IS"):
        assert words in notice
