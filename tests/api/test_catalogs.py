"""The catalogues for other tools: what is listed, at which price, under which name."""

import csv
import io

import msgpack
import pytest

from api.catalogs import COLUMNS, GPUS, instance_sizes, known_gpu
from tests.api.conftest import MARKET


async def rows_of(venue):
    answered = await venue.call("GET", "/v1/catalog.csv")
    assert (answered.status, answered.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    reader = csv.DictReader(io.StringIO(answered.raw.decode()))
    assert tuple(reader.fieldnames) == COLUMNS
    return list(reader)


async def traded(venue):
    """Return the price of a market after a trade, from the market's own route."""
    await venue.offer_node()
    await venue.place(gpus=2, limit_price_per_gpu_hour="2.00")
    await venue.lease_in("running")
    # A price between the only bid and the only offer stays where it is, so both reads see the same.
    return (await venue.ok("GET", f"/v1/markets/{MARKET}"))["price"]


async def test_a_market_that_has_not_traded_has_no_spot_price_and_no_item(venue):
    rows = await rows_of(venue)
    assert [row["InstanceType"] for row in rows] == [f"{gpus}x_{MARKET}" for gpus in (1, 2, 4, 8)]
    assert {(row["SpotPrice"], row["Price"], row["vCPUs"], row["MemoryGiB"]) for row in rows} == {("",) * 4}
    assert {row["AvailableGPUs"] for row in rows} == {"0"}
    assert await venue.ok("GET", "/v1/catalog.json") == []


async def test_the_spot_price_is_the_last_clearing_price_times_the_gpus(venue):
    micro = int((await traded(venue)).replace(".", ""))
    rows = await rows_of(venue)
    assert [int(row["SpotPrice"].replace(".", "")) for row in rows] == [micro * gpus for gpus in (1, 2, 4, 8)]
    assert all(len(row["SpotPrice"].partition(".")[2]) == 6 for row in rows)
    last = rows[-1]
    assert (last["AcceleratorName"], last["AcceleratorCount"], last["Region"]) == ("H100", "8", "test")
    assert (last["Price"], last["Market"], last["AvailableGPUs"]) == ("", MARKET, "8")


async def test_an_item_has_gpuhunts_fields_and_says_the_same_as_the_row(venue):
    await traded(venue)
    items = await venue.ok("GET", "/v1/catalog.json")
    rows = await rows_of(venue)
    assert [(item["instance_name"], item["price"], item["location"]) for item in items] == [
        (row["InstanceType"], row["SpotPrice"], row["Region"]) for row in rows
    ]
    assert items[1] == {
        "provider": "fallow",
        "instance_name": f"2x_{MARKET}",
        "location": "test",
        "price": rows[1]["SpotPrice"],
        "cpu": None,
        "memory": None,
        "gpu_count": 2,
        "gpu_name": "H100",
        "gpu_memory": 80,
        "spot": True,
        "disk_size": None,
        "gpu_vendor": "nvidia",
        "flags": [],
        "provider_data": {"market": MARKET, "available_gpus": 8, "currency": "USD"},
    }


@pytest.mark.parametrize("status", ["halted", "cancel_only"])
async def test_a_market_that_takes_no_bids_is_left_out_until_it_resumes(venue, status):
    await traded(venue)
    halt = f"/v1/operator/markets/{MARKET}/halt"
    await venue.ok("POST", halt, venue.operator, {"reason": "test", "status": status})
    assert (await rows_of(venue), await venue.ok("GET", "/v1/catalog.json")) == ([], [])
    await venue.ok("POST", f"/v1/operator/markets/{MARKET}/resume", venue.operator)
    assert len(await rows_of(venue)) == 4


async def test_markets_are_in_order_and_what_the_tools_cannot_name_is_left_out(venue):
    a100 = {"gpu_model": "A100 PCIE", "gpu_memory_gib": 79, "gpus_per_node": 6}
    await venue.open_market("a100-pcie.test", **a100)
    await venue.open_market("unheard-of.test", gpu_model="Abacus 1")
    await venue.open_market("model.test", kind="model")
    await venue.open_market(
        "l40s.test", gpu_model="L40S", gpu_memory_gib=45, gpus_per_node=1, region="eu, west"
    )
    rows = await rows_of(venue)
    assert [(row["Market"], row["AcceleratorName"], row["AcceleratorCount"]) for row in rows] == [
        *(("a100-pcie.test", "A100-80GB", gpus) for gpus in "1246"),
        *((MARKET, "H100", gpus) for gpus in "1248"),
        ("l40s.test", "L40S", "1"),
    ]
    assert rows[-1]["Region"] == "eu, west", "a comma is quoted"


async def test_the_media_type_is_the_paths_and_a_wrong_query_is_refused(venue):
    for accept in ("text/csv", "application/json", "*/*"):
        answered = await venue.call("GET", "/v1/catalog.csv", Accept=accept)
        assert (answered.status, answered.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    packed = await venue.call("GET", "/v1/catalog.json", Accept="application/msgpack")
    assert msgpack.unpackb(packed.raw) == []
    refused = await venue.call("GET", "/v1/catalog.csv?never=1")
    assert (refused.status, refused.headers["Content-Type"]) == (422, "application/problem+json")


def test_sizes_are_powers_of_two_and_the_node():
    assert [instance_sizes(gpus) for gpus in (1, 2, 3, 8, 10)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
        [1, 2, 4, 8, 10],
    ]
    assert len(instance_sizes(1024)) == 11


@pytest.mark.parametrize(
    ("model", "memory_gib", "name"),
    [
        ("H100", 80, "H100"),
        ("NVIDIA H100 80GB HBM3", 80, "H100"),
        ("H100 SXM", 80, "H100"),
        ("H100 NVL", 94, "H100-NVL"),
        ("H200", 140, "H200"),
        ("NVIDIA A100-SXM4-40GB", 40, "A100"),
        ("A100 PCIE", 80, "A100-80GB"),
        ("Tesla V100", 32, "V100-32GB"),
        ("GeForce RTX 4090", 24, "RTX4090"),
        ("RTX 6000 Ada", 48, "RTX6000-Ada"),
        ("AMD Instinct MI300X", 192, "MI300X"),
        ("RTX 4090", 48, None),
        ("H100", 94, None),
        ("", 80, None),
    ],
)
def test_a_model_is_known_by_name_and_memory(model, memory_gib, name):
    known = known_gpu(model, memory_gib)
    assert (known and known[0].skypilot[known[1]]) == name


def test_every_listed_gpu_is_found_by_both_its_names():
    for key, gpu in GPUS.items():
        for memory_gib in gpu.skypilot:
            assert known_gpu(key, memory_gib) == (gpu, memory_gib)
