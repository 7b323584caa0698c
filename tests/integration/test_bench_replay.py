"""The replay of the recorded cluster at its smoke size: reproducible, balanced, and not rotten."""

from dataclasses import replace

import pytest

from bench import openb_table
from bench.openb_trace import Parameters, load_scenario
from bench.replay_openb import REPOSITORY, SCENARIOS, SMOKE, replay
from tests.support import assert_audit_passes

DATA = REPOSITORY.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not (DATA / "alibaba-openb-pods.csv").exists(), reason="the recorded cluster is not part of this package"
)


def smoke(name: str, **changes) -> Parameters:
    return replace(SCENARIOS[name], **{**SMOKE, **changes})


async def replayed(server, parameters: Parameters):
    database = await server.new_database()
    result = await replay(database, load_scenario(DATA, parameters))
    await assert_audit_passes(database)
    return result


@pytest.mark.parametrize("server", ["embedded"], indirect=True)  # one is enough for a bench
async def test_a_replay_is_reproducible_and_its_figures_agree(server):
    """The hash does not depend on how the changes are cut into commits. Both runs are audited."""
    result = await replayed(server, smoke("tight"))
    again = await replayed(server, smoke("tight", commit_entries=37))
    assert result["hash"] == again["hash"]
    figures, totals, tenants = result["figures"], result["figures"]["totals"], result["figures"]["tenants"]
    assert totals["charged_usd"] == pytest.approx(totals["owners_net_usd"] + totals["fee_usd"])
    assert 0 < totals["sold_gpu_hours"] < totals["offered_gpu_hours"] < totals["gpu_hours"]
    assert 0 < tenants["completed"] <= tenants["started"] <= tenants["bids"]
    assert 0 < tenants["sold_that_was_work"] <= 1
    assert figures["notices"]["broken"] == 0
    assert result["audit"]["failed"] == []
    assert "checks ok" in openb_table.render("tight", result)


def test_another_seed_is_another_scenario():
    first, other = (load_scenario(DATA, smoke("tight", seed=seed)) for seed in (1, 2))
    assert [task.limit for task in first.tasks] != [task.limit for task in other.tasks]
    assert [node.reserve for node in first.nodes] != [node.reserve for node in other.nodes]


def test_every_pod_of_the_trace_is_used_or_counted_as_dropped():
    counts = load_scenario(DATA, Parameters()).counts
    dropped = sum(number for name, number in counts.items() if name.startswith("dropped_"))
    assert counts["pods_in_trace"] == counts["bids"] + counts["owner_tasks"] + dropped


def test_a_kept_part_of_the_nodes_has_room_for_every_gang():
    scenario = load_scenario(DATA, smoke("tight"))
    largest = dict.fromkeys(scenario.list_prices, 0)
    for node in scenario.nodes:
        largest[node.model] = max(largest[node.model], node.gpus)
    assert all(task.gpus <= largest[task.model] for task in scenario.tasks)
