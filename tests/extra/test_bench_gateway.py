"""The gateway's row of bench_http at a smoke size, against the real gateway.

Run by `FALLOW_BENCH_PYTHON312=… pytest tests/extra/test_bench_gateway.py`; see bench/http_gateway.py.
"""

from rich.progress import Progress

from bench import http_gateway
from bench.http_load import Outcome


async def test_every_order_that_the_gateway_acknowledges_is_counted(tmp_path):
    """A round raises where its log holds more or fewer; our side is a stand-in of a fixed rate."""

    async def ours() -> Outcome:
        return Outcome(1, 0, 0.001, [])

    with Progress(disable=True) as progress:
        found = await http_gateway.against_gateway(ours, 0.5, 2, tmp_path, progress)
    assert len(found["gateway_per_s"]) == 2 and min(found["gateway_per_s"]) > 0
    assert found["ratio"] > 0
    assert list(tmp_path.glob(f"{http_gateway.MARKET}/*")), "its log is on the disk"
