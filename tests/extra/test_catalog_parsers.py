"""The catalogues of a real server, read by the real packages: SkyPilot's functions, gpuhunt's item and rows.

Run by `pytest tests/extra/test_catalog_parsers.py` with gpuhunt (the extra `gateways`) and skypilot==0.14.1.
"""

import dataclasses

import pytest

from tests.api.conftest import MARKET


@pytest.fixture
async def spot_price(venue):
    """The price of a GPU-hour, in dollars, of a market that trades beside one that never has."""
    await venue.open_market("a100-pcie.test", gpu_model="A100 PCIE", region="elsewhere")
    await venue.offer_node()
    await venue.place(gpus=2, limit_price_per_gpu_hour="2.00")
    await venue.lease_in("running")
    return float((await venue.ok("GET", f"/v1/markets/{MARKET}"))["price"])


@pytest.fixture
async def catalog(venue, spot_price, tmp_path, monkeypatch):
    """What SkyPilot's own reader makes of the CSV, where it keeps catalogues that a user put there."""
    common = pytest.importorskip("sky.catalog.common")
    monkeypatch.setattr(common, "_ABSOLUTE_VERSIONED_CATALOG_DIR", str(tmp_path))
    answered = await venue.call("GET", "/v1/catalog.csv")
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "fallow.csv").write_bytes(answered.raw)
    return common.read_catalog("common/fallow.csv")._load_df()


def test_skypilot_finds_sizes_prices_and_regions(catalog, spot_price):
    from sky.catalog import common

    eight = f"8x_{MARKET}"
    assert common.instance_type_exists_impl(catalog, eight)
    cost = common.get_hourly_cost_impl(catalog, eight, use_spot=True, region="test", zone=None)
    assert cost == pytest.approx(8 * spot_price)
    assert common.get_accelerators_from_instance_type_impl(catalog, eight) == {"H100": 8}
    assert common.get_vcpus_mem_from_instance_type_impl(catalog, eight) == (None, None)
    found, _ = common.get_instance_type_for_accelerator_impl(catalog, "H100", 2, use_spot=True)
    assert found == [f"2x_{MARKET}"]
    assert common.validate_region_zone_impl("fallow", catalog, "TEST", None) == ("test", None)
    regions = common.get_region_zones(catalog[catalog["InstanceType"] == eight], use_spot=True)
    assert [region.name for region in regions] == ["test"]


def test_skypilot_lists_accelerators_with_the_memory_of_one_gpu(catalog, spot_price):
    from sky.catalog import common

    listed = common.list_accelerators_impl("fallow", catalog, True, None, None, None)
    assert sorted(listed) == ["A100-80GB", "H100"]
    assert [one.accelerator_count for one in listed["H100"]] == [1, 2, 4, 8]
    assert {one.device_memory for one in listed["H100"]} == {80.0}
    assert [one.spot_price for one in listed["H100"]] == pytest.approx([n * spot_price for n in (1, 2, 4, 8)])


def test_skypilot_never_takes_a_spot_price_for_an_on_demand_one(catalog):
    from sky.catalog import common

    assert common.get_instance_type_for_accelerator_impl(catalog, "H100", 2, use_spot=False) == ([], [])
    with pytest.raises(ValueError, match="No Price found"):
        common.get_hourly_cost_impl(catalog, f"1x_{MARKET}", use_spot=False, region=None, zone=None)
    with pytest.raises(ValueError, match="No SpotPrice found"):
        common.get_hourly_cost_impl(catalog, "1x_a100-pcie.test", use_spot=True, region=None, zone=None)


async def test_gpuhunts_item_and_filter_read_the_json(venue, spot_price):
    gpuhunt = pytest.importorskip("gpuhunt")
    from gpuhunt._internal.constraints import matches

    listed = await venue.ok("GET", "/v1/catalog.json")
    assert len(listed) == 4, "a market without a price is no item"
    names = {field.name for field in dataclasses.fields(gpuhunt.CatalogItem)}
    assert names - set(listed[0]) == {"cpu_arch"}, "nodes do not report it"
    items = [gpuhunt.CatalogItem(**item | {"price": float(item["price"])}) for item in listed]

    def found(**wanted):
        wanted = gpuhunt.QueryFilter(**wanted)
        return [item.gpu_count for item in items if matches(item, wanted)]

    vendor = gpuhunt.AcceleratorVendor.NVIDIA
    assert found(gpu_name=["H100"], gpu_vendor=vendor, min_gpu_memory=80, spot=True) == [1, 2, 4, 8]
    assert found(max_price=4.5 * spot_price, min_gpu_count=2) == [2, 4]
    assert found(min_total_gpu_memory=640, min_compute_capability=(9, 0)) == [8]
    assert found(spot=False) == []


async def test_gpuhunts_file_reader_takes_an_item_once_cpu_and_memory_are_put_in(venue, spot_price):
    """Method: the texts of its file format, with a reader's own figures for what is null."""
    storage = pytest.importorskip("gpuhunt._internal.storage")
    item = (await venue.ok("GET", "/v1/catalog.json"))[-1]
    row = {name: "" if item.get(name) is None else str(item[name]) for name in storage.CATALOG_V2_FIELDS}
    row |= {"flags": "", "provider_data": ""}
    with pytest.raises(ValueError, match="cpu"):
        storage.item_from_row(row, provider="fallow")
    read = storage.item_from_row(row | {"cpu": "32", "memory": "256"}, provider="fallow")
    assert (read.instance_name, read.gpu_count, read.gpu_memory) == (f"8x_{MARKET}", 8, 80)
    assert read.price == pytest.approx(8 * spot_price)


def test_every_gpu_is_one_that_gpuhunt_knows():
    constraints = pytest.importorskip("gpuhunt._internal.constraints")
    from api.catalogs import GPUS

    known = {(gpu.name, gpu.memory, gpu.vendor.value) for gpu in constraints.KNOWN_ACCELERATORS}
    ours = {(gpu.gpuhunt, memory, gpu.vendor) for gpu in GPUS.values() for memory in gpu.skypilot}
    assert ours <= known
