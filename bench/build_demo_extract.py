"""Make the small extract of real market data that ships with `fallow demo`.

    python -m bench.build_demo_extract ../shared/data

reads `vast-offers.csv` and `gpu-list-prices.csv` there and writes `fallow/data/offers.csv.gz` (one row
a machine: its largest slice, reserve per GPU = minimum bid / GPUs) and `fallow/data/list_prices.csv.gz`
(the median posted price per model and hour). Sources and licences: `fallow/data/NOTICE.md`.
"""

import csv
import gzip
import io
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from statistics import median

DATA = Path(__file__).parents[1] / "fallow" / "data"

# The marketplace's model names, and what a market of them is called: (slug, model, interconnect).
MODELS = {
    "H100 SXM": ("h100-sxm", "H100 SXM", "nvlink"),
    "H200": ("h200-sxm", "H200", "nvlink"),
    "A100 PCIE": ("a100-pcie", "A100 PCIE", "pcie"),
    "L40S": ("l40s", "L40S", "pcie"),
    "RTX 4090": ("rtx4090", "RTX 4090", "pcie"),
    "Tesla V100": ("v100", "Tesla V100", "nvlink"),
}
LIST_NAMES = {"H100_80GB_SXM5": "h100-sxm", "H200_141GB": "h200-sxm", "A100_80GB_SXM4": "a100-pcie"}
EUROPE = {
    *("FR", "GB", "IS", "SE", "NL", "BG", "CZ", "IT", "RO", "HU"),
    *("NO", "EE", "FI", "ES", "PT", "DK", "MK", "AT", "PL"),
}
ASIA = {"JP", "CN", "TW", "HK", "IN", "TH", "KR", "VN", "MO"}


def region_of(location: str) -> str:
    country = location.rsplit(",", 1)[-1].strip()
    if country == "US":
        return "us"
    if country in EUROPE:
        return "eu"
    return "asia" if country in ASIA else "world"


def read_offers(path: Path) -> list[list[str]]:
    """Return one row a machine: its largest slice, the newest observation of it."""
    best: dict[str, dict[str, str]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["gpu_model"] not in MODELS:
                continue
            known = best.get(row["machine"])
            size = (int(row["gpu_count"]), row["observed_at"])
            if known is None or size > (int(known["gpu_count"]), known["observed_at"]):
                best[row["machine"]] = row
    rows = []
    for machine in sorted(best, key=lambda name: int(name.split("-")[1])):
        row = best[machine]
        slug, model, interconnect = MODELS[row["gpu_model"]]
        gpus = int(row["gpu_count"])
        reserve = Decimal(row["min_bid_usd_per_hour"]) / gpus
        on_demand = Decimal(row["on_demand_usd_per_hour"]) / gpus
        memory_gib = round(int(row["gpu_memory_mib"]) / 1024)
        rows.append(
            [
                slug,
                model,
                interconnect,
                str(memory_gib),
                region_of(row["location"]),
                row["host"],
                machine,
                str(gpus),
                f"{reserve:.6f}",
                f"{on_demand:.6f}",
            ]
        )
    return rows


def read_list_prices(path: Path) -> list[list[str]]:
    """Return (slug, hour, median posted price) for every hour that was observed."""
    hours: dict[tuple[str, str], list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            slug = LIST_NAMES.get(row["gpu_model"])
            if slug is not None and row["median"]:
                hours[slug, row["observed_at"][:13]].append(float(row["median"]))
    return [[slug, hour, f"{median(prices):.4f}"] for (slug, hour), prices in sorted(hours.items())]


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write reproducibly: no time and no name inside the archive."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes")


def main() -> None:
    source = Path(sys.argv[1])
    header = "market model interconnect gpu_memory_gib region host machine gpus reserve on_demand"
    write(DATA / "offers.csv.gz", header.split(), read_offers(source / "vast-offers.csv"))
    write(
        DATA / "list_prices.csv.gz",
        ["market", "hour", "median"],
        read_list_prices(source / "gpu-list-prices.csv"),
    )


if __name__ == "__main__":
    main()
