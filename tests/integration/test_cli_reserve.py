"""`fallow reserve` as a user runs it: help that teaches, both outputs, the workings, the refusals."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.integration.test_cli import fallow, free_port

PRICE = ["reserve", "--purchase-price-per-gpu", "36000"]
EXAMPLE = [
    *PRICE, "--age-months", 18, "--load-watts", 1000, "--idle-watts", 200, "--pue-bps", 12500,
    "--energy-price-per-kwh", "0.10", "--operations-per-gpu-hour", "0.05",
]  # fmt: skip


def test_help_teaches_with_an_example():
    shown = fallow("reserve", "--help")
    assert shown.returncode == 0
    assert "fallow reserve --purchase-price-per-gpu 30000" in shown.stdout
    for option in ("--energy-price-per-kwh", "--useful-life-months", "--recall-odds-bps", "--explain",
                   "--market", "--server"):  # fmt: skip
        assert option in shown.stdout
    assert "default 15800" in shown.stdout
    assert "reserve" in fallow("--help").stdout


def test_the_table_and_the_json_say_the_same():
    table = fallow(*EXAMPLE, "--price-per-gpu-hour", "1.00")
    shown = fallow(*EXAMPLE, "--price-per-gpu-hour", "1.00", "-o", "json")
    assert (table.returncode, shown.returncode) == (0, 0), table.stderr + shown.stderr
    view = json.loads(shown.stdout)
    # (1.0 - 0.2) kW x 1.25 x $0.10 + $0.05 = 0.15 net, / 0.95 gross
    assert view["short_run_floor"]["net_per_gpu_hour"] == "0.150000"
    lines = [line.split() for line in table.stdout.splitlines()]
    assert ["short-run", "floor", "0.150000", "0.157895"] in lines
    assert ["reserve", "to", "ask", "for", "0.150000", "0.157895"] in lines
    assert ["market", "price", "1.000000"] in lines
    assert "buy no more of them" in table.stdout


def test_explain_puts_the_numbers_into_the_formulas():
    shown = fallow(*EXAMPLE, "--explain").stdout
    assert "= (extra_energy + operations + wear + switching + recall) / (1 - 5.00 %)" in shown
    assert "V(t) = scrap + (price paid - scrap) × e^(-0." in shown
    assert "(1.000 kW - 0.200 kW) × PUE 1.250 × $0.100000/kWh" in shown
    assert "/ 70.00 % leased" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["reserve"],
        [*PRICE, "--pue-bps", 1],
        [*PRICE, "--residual-bps", 400],
        [*PRICE, "--idle-watts", 5000],
        [*PRICE, "--energy-price-per-kwh", "1e3"],
        [*PRICE, "--energy-price-per-kwh", "-1"],
        [*PRICE, "--energy-price-per-kwh", "NaN"],
        [*PRICE, "--age-months", "1.5"],
        [*PRICE, "--market", "h100.test"],
        [*PRICE, "--server", "http://127.0.0.1:1"],
        [*PRICE, "--server", "nonsense", "--market", "m"],
        [*PRICE, "--days", 0],
        [*PRICE, "-o", "csv"],
    ],
    ids=str,
)
def test_wrong_usage_is_exit_code_2(arguments):
    done = fallow(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_exit_code_5():
    done = fallow(*PRICE, "--market", "m", "--server", f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done.stderr


class _Stranger(BaseHTTPRequestHandler):
    """Answers every request with a page, as some other service would."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *arguments):
        pass


def test_a_server_that_is_something_else_is_exit_code_5():
    with HTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        done = fallow(*PRICE, "--market", "m", "--server", f"http://127.0.0.1:{stranger.server_port}")
        stranger.shutdown()
    assert done.returncode == 5, done.stderr
    assert "not as this API does" in done.stderr
