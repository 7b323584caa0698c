"""The calibration of the odds, at a smoke size: they beat the base rate, and the scores are what they say."""

from dataclasses import replace

import pytest

from bench.calibration import measure, render, score
from bench.openb_trace import load_scenario
from bench.replay_openb import REPOSITORY, SCENARIOS

DATA = REPOSITORY.parent / "shared" / "data"


def test_scores_are_the_mean_squared_error_and_the_shares_of_each_bin():
    scores = score([(3_600, 0.95, True, 1.0), (3_600, 0.05, False, 1.5), (3_600, 0.05, True, 1.5)])
    assert scores["brier"] == pytest.approx((0.05**2 + 0.05**2 + 0.95**2) / 3)
    assert scores["brier_of_base_rate"] == pytest.approx(2 / 9)
    assert [(row["predictions"], row["outbid"]) for row in scores["reliability"]] == [(2, 0.5), (1, 1.0)]


@pytest.mark.parametrize("server", ["embedded"], indirect=True)  # one is enough for a bench
@pytest.mark.skipif(
    not (DATA / "alibaba-openb-pods.csv").exists(), reason="the recorded cluster is not part of this package"
)
async def test_the_odds_of_a_recorded_cluster_beat_its_base_rate(server):
    database = await server.new_database()
    scenario = load_scenario(DATA, replace(SCENARIOS["tight"], from_day=120.0, days=1.0))
    figures = await measure(database, scenario)
    scores = figures["by_horizon_seconds"]["3600"]
    assert scores["predictions"] > 200
    assert scores["brier"] < scores["brier_of_base_rate"]
    assert "Brier" in render(figures)
