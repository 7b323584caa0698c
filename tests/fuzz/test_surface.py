"""The attack on the surface has teeth: a mixed-up key, a fault and a lost check are found by it."""

import asyncio
import re

import pytest
from yarl import URL

from api.app import ROUTES
from api.auth import Authenticator
from api.call import Call
from tests.fuzz.surface import attack, run_attack, surface
from tests.support import Server

REQUESTS = 3_000


@pytest.fixture
def postgres(tmp_path):
    running = Server(tmp_path / "postgres")
    yield running
    running.stop()


def test_a_key_that_is_taken_for_anothers_is_found(monkeypatch):
    """Now and then the cache of keys answers with whom it saw before: the canaries tell."""
    right = Authenticator.authenticate
    before = []

    async def mixed_up(self, *arguments):
        principal = await right(self, *arguments)
        before.append(principal)
        return before[-2] if len(before) % 5 == 4 else principal

    monkeypatch.setattr(Authenticator, "authenticate", mixed_up)
    seen = run_attack(REQUESTS, 2, seconds_max=60)
    assert any("shows" in leak for leak in seen.leaks), seen.statuses


def test_a_header_that_is_read_without_a_check_is_found(monkeypatch):
    def unchecked(self):
        text = self.request.headers.get("If-Match")
        return None if text is None else int(text.strip('"'))

    monkeypatch.setattr(Call, "expected_version", unchecked)
    seen = run_attack(REQUESTS, 3, seconds_max=60)
    assert any("-> 500" in fault for fault in seen.faults), seen.statuses
    assert any("ValueError" in fault for fault in seen.faults), "what is logged is counted too"


def test_an_attack_leaves_nothing_behind(tmp_path):
    """The same server can be attacked twice: each has a market of its own."""
    server = Server(tmp_path / "postgres")
    try:
        for seed in (4, 5):
            seen = asyncio.run(attack(server, 400, seed))
            assert ([], [], "") == (seen.faults, seen.leaks, seen.not_well)
    finally:
        server.stop()


async def test_a_nul_in_any_path_or_query_is_refused(postgres):
    """Found by the attack: DELETE /v1/sessions/%00 went as far as the database, which knows no NUL."""
    failed = []
    async with surface(postgres, 6) as (running, session, _):
        for sender in running.tenants[:1]:
            headers = {"Authorization": f"Bearer {sender.key}"}
            for route in ROUTES:
                asked = [re.sub(r"\{[a-z_]+\}", "%00", route.path)] if "{" in route.path else []
                if route.method == "GET":
                    path = re.sub(r"\{[a-z_]+\}", "x", route.path)
                    asked += [f"{path}?{name}=a%00" for name in route.query.__struct_fields__]
                for path in asked:
                    async with session.request(
                        route.method, URL(path, encoded=True), headers=headers
                    ) as answered:
                        if answered.status >= 500:
                            failed.append((route.method, path, answered.status))
    assert [] == failed
