"""What every test shares: the long forms run only when `-m long` asks for them."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" in str(config.getoption("markexpr")):
        return
    long = [item for item in items if item.get_closest_marker("long") is not None]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


# The embedded binaries always, Debian's server too where it is installed.
BINARIES = {"embedded": None, "debian": Path("/usr/lib/postgresql/15/bin")}


@pytest.fixture(
    scope="session", params=[name for name, path in BINARIES.items() if path is None or path.exists()]
)
def server(request, tmp_path_factory):
    """A PostgreSQL server for this test run, under our supervisor."""
    from tests.support import Server

    running = Server(tmp_path_factory.mktemp("postgres"), BINARIES[request.param])
    yield running
    running.stop()
