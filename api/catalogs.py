"""The markets as the catalogues that other tools read: SkyPilot's CSV and gpuhunt's items.

A row is a size that can be bid for in an open market: 1, 2, 4 ... GPUs of one node, and the whole node. Its
price is the last clearing price times its GPUs: a spot price that the next tick may change. There is no other
price here: nothing can be had for sure, so SkyPilot's on-demand `Price` stays empty. So does what no node
reports: vCPUs and host memory. A GPU that the tools have no name for is left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from api.call import Call, Reply
from api.fields import CURRENCY
from api.routes import NoBody, NoQuery, route
from api.sheets import CSV_TYPE, write_csv
from auction.core import Core
from auction.model import Market, MarketStatus
from auction.ports import Answer
from auction.units import format_microusd

PROVIDER = "fallow"
MIB_PER_GIB = 1024
# Drivers report a little less than the size a GPU is sold by: 45 GiB of an L40S's 48. gpuhunt allows as much.
MEMORY_TOLERANCE_PERCENT = 7

# SkyPilot's own nine columns; the last two are ours, and it ignores them.
COLUMNS = (
    "InstanceType",
    "AcceleratorName",
    "AcceleratorCount",
    "vCPUs",
    "MemoryGiB",
    "Price",
    "Region",
    "GpuInfo",
    "SpotPrice",
    "Market",
    "AvailableGPUs",
)

_NOISE = re.compile(r"NVIDIA|AMD|TESLA|GEFORCE|INSTINCT|SXM[0-9]?|PCIE|HBM[0-9]E?|[0-9]+GI?B|[^A-Z0-9]")


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the tools call a GPU, by the sizes of memory that it is sold with (GiB)."""

    gpuhunt: str
    skypilot: dict[int, str]
    vendor: str = "nvidia"


# By the model's letters and digits alone, in capitals.
GPUS = {
    "A10": Gpu("A10", {24: "A10"}),
    "A10G": Gpu("A10G", {24: "A10G"}),
    "A40": Gpu("A40", {48: "A40"}),
    "A100": Gpu("A100", {40: "A100", 80: "A100-80GB"}),
    "B200": Gpu("B200", {180: "B200"}),
    "GH200": Gpu("GH200", {96: "GH200"}),
    "H100": Gpu("H100", {80: "H100"}),
    "H100NVL": Gpu("H100NVL", {94: "H100-NVL"}),
    "H200": Gpu("H200", {141: "H200"}),
    "L4": Gpu("L4", {24: "L4"}),
    "L40": Gpu("L40", {48: "L40"}),
    "L40S": Gpu("L40S", {48: "L40S"}),
    "MI300X": Gpu("MI300X", {192: "MI300X"}, "amd"),
    "P100": Gpu("P100", {16: "P100"}),
    "RTX3090": Gpu("RTX3090", {24: "RTX3090"}),
    "RTX4090": Gpu("RTX4090", {24: "RTX4090"}),
    "RTX5090": Gpu("RTX5090", {32: "RTX5090"}),
    "RTX6000ADA": Gpu("RTX6000Ada", {48: "RTX6000-Ada"}),
    "RTXA4000": Gpu("A4000", {16: "RTXA4000"}),
    "RTXA5000": Gpu("A5000", {24: "RTXA5000"}),
    "RTXA6000": Gpu("A6000", {48: "RTXA6000"}),
    "T4": Gpu("T4", {16: "T4"}),
    "V100": Gpu("V100", {16: "V100", 32: "V100-32GB"}),
}


class ProviderData(Struct, frozen=True):
    """`available_gpus`: on offer in the market now; each is let anew at every tick."""

    market: str
    available_gpus: int
    currency: str = CURRENCY


class CatalogItemView(Struct, frozen=True):
    """One gpuhunt item, named as its fields are. `price` is of all the item's GPUs for an hour, a decimal
    string; memory is GiB of one GPU. Null is unknown."""

    provider: str
    instance_name: str
    location: str
    price: str
    cpu: int | None
    memory: int | None
    gpu_count: int
    gpu_name: str
    gpu_memory: int
    spot: bool
    disk_size: int | None
    gpu_vendor: str
    flags: list[str]
    provider_data: ProviderData


@dataclass(frozen=True, slots=True)
class _Size:
    """So many GPUs of a market, and what the tools call them."""

    market: Market
    gpu: Gpu
    memory_gib: int
    gpus: int
    available_gpus: int

    @property
    def name(self) -> str:
        return f"{self.gpus}x_{self.market.id}"

    @property
    def price(self) -> str | None:
        """Of all its GPUs, for an hour; None where the market has not traded."""
        price = self.market.price
        return None if price is None else format_microusd(price * self.gpus)


@route("GET", "/v1/catalog.csv", media=CSV_TYPE)
async def get_catalog_csv(call: Call[NoBody, NoQuery]) -> Reply[str]:
    """List what can be bid for as a SkyPilot catalogue: one row per open market and number of GPUs.

    `SpotPrice` is the last clearing price times the GPUs, empty until the market trades. `Price` is empty:
    there is no on-demand price, a GPU may be lost with notice at any limit. `vCPUs` and `MemoryGiB` are not
    known. GPUs without a name in SkyPilot or gpuhunt are left out. `AvailableGPUs` counts those on offer.
    """
    rows = [_csv_row(size) for size in _sizes(call.core)]
    return Reply(answer=Answer(200, CSV_TYPE, write_csv([COLUMNS, *rows])))


@route("GET", "/v1/catalog.json")
async def get_catalog(call: Call[NoBody, NoQuery]) -> Reply[list[CatalogItemView]]:
    """List what can be bid for as gpuhunt (dstack) catalogue items: all spot, markets that have traded only.

    Its fields are `CatalogItem`'s, but `price` is a decimal string. `cpu` and `memory` are null, not
    known: put in your own, gpuhunt's filters need them. GPUs that gpuhunt has no name for are left out.
    """
    return call.reply([_item(size, price) for size in _sizes(call.core) if (price := size.price) is not None])


def instance_sizes(gpus_per_node: int) -> list[int]:
    """Return the GPU counts that are listed: the powers of two within a node, and the node."""
    powers = [1 << bit for bit in range(gpus_per_node.bit_length())]
    return powers if powers[-1] == gpus_per_node else [*powers, gpus_per_node]


def known_gpu(model: str, memory_gib: int) -> tuple[Gpu, int] | None:
    """Return what the tools call a GPU and the size it is sold by (GiB), None where they know none such."""
    gpu = GPUS.get(_NOISE.sub("", model.upper()))
    if gpu is None:
        return None
    for sold_gib in sorted(gpu.skypilot):
        if abs(sold_gib - memory_gib) * 100 < sold_gib * MEMORY_TOLERANCE_PERCENT:
            return gpu, sold_gib
    return None


def _sizes(core: Core) -> Iterator[_Size]:
    for _, market in sorted(core.markets.items()):
        known = known_gpu(market.gpu_model, market.gpu_memory_gib)
        if known is None or market.kind != "gpu" or market.status is not MarketStatus.OPEN:
            continue
        gpu, memory_gib = known
        available_gpus = core.offered_gpus(market.id)
        for gpus in instance_sizes(market.gpus_per_node):
            yield _Size(market, gpu, memory_gib, gpus, available_gpus)


def _csv_row(size: _Size) -> tuple[object, ...]:
    name = size.gpu.skypilot[size.memory_gib]
    return (
        size.name,
        name,
        size.gpus,
        None,
        None,
        None,
        size.market.region,
        _gpu_info(name, size),
        size.price,
        size.market.id,
        size.available_gpus,
    )


def _gpu_info(name: str, size: _Size) -> str:
    """Write the GPUs as SkyPilot reads them: a literal of Python, which this JSON is too."""
    memory_mib = size.memory_gib * MIB_PER_GIB
    one: dict[str, Any] = {
        "Name": name,
        "Manufacturer": size.gpu.vendor.upper(),
        "Count": size.gpus,
        "MemoryInfo": {"SizeInMiB": memory_mib},
    }
    return msgspec.json.encode({"Gpus": [one], "TotalGpuMemoryInMiB": memory_mib * size.gpus}).decode()


def _item(size: _Size, price: str) -> CatalogItemView:
    return CatalogItemView(
        provider=PROVIDER,
        instance_name=size.name,
        location=size.market.region,
        price=price,
        cpu=None,
        memory=None,
        gpu_count=size.gpus,
        gpu_name=size.gpu.gpuhunt,
        gpu_memory=size.memory_gib,
        spot=True,
        disk_size=None,
        gpu_vendor=size.gpu.vendor,
        flags=[],
        provider_data=ProviderData(size.market.id, size.available_gpus),
    )
