"""Tasks, tuning repetitions and seed blocks drawn again: variances by hand, coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from curvebench.statistics.hierarchy import percentile, resampled_means


def test_each_level_adds_its_variance() -> None:
    """Two-stage formulas for resampling with replacement; one task, so that tasks add nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 1))
    found = resampled_means([x], 40_000)[:, 0].var()
    between = x.mean(axis=1).var() / 4
    within = x.var(axis=1).mean() / (4 * 6)
    assert found == pytest.approx(between + within, rel=0.04)


def test_one_level_is_the_plain_bootstrap() -> None:
    x = np.random.default_rng(1).normal(size=(1, 8, 1))
    assert resampled_means([x], 40_000)[:, 0].var() == pytest.approx(x.var() / 8, rel=0.04)


def test_tasks_are_resampled_unless_they_are_all_there_is() -> None:
    values = [np.full((1, 3, 1), float(k)) for k in range(5)]
    assert resampled_means(values, 20_000)[:, 0].var() == pytest.approx(np.var(range(5)) / 5, rel=0.05)
    assert np.ptp(resampled_means(values, 100, tasks=False)) == 0.0


def test_methods_share_every_draw() -> None:
    x = np.random.default_rng(2).normal(size=(3, 5, 1))
    drawn = resampled_means([np.concatenate([x, x + 2.0], axis=2)] * 2, 500)
    assert drawn[:, 1] - drawn[:, 0] == pytest.approx(np.full(500, 2.0))


def test_the_same_seed_is_the_same_draw() -> None:
    x = [np.random.default_rng(3).normal(size=(2, 3, 2))]
    assert (resampled_means(x, 50) == resampled_means(x, 50)).all()


@pytest.mark.parametrize("bad", [[], [np.ones((2, 2))], [np.ones((0, 2, 1))], [np.full((1, 2, 1), np.nan)]])
def test_bad_values(bad: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="must be"):
        resampled_means(bad)


def test_coverage_over_tasks() -> None:
    """Task means normal around 0 with noise inside: 30 tasks, a percentile interval of the grand mean."""
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(100):
        values = [rng.normal(scale=0.5, size=(2, 3, 1)) + rng.normal() for _ in range(30)]
        drawn = resampled_means(values, 300)[:, 0]
        found = percentile(drawn, float(np.mean([v.mean() for v in values])), 30)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.0 <= found.high
    assert inside / 100 >= 0.86
