"""Best of k against every subset, and its band against pools drawn anew."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvebench.statistics.pool import best_of, order_chances

POOL = st.lists(st.one_of(st.none(), st.integers(0, 20).map(float)), min_size=1, max_size=6)


@given(POOL, st.sampled_from(["min", "max"]))
def test_it_is_the_mean_over_all_subsets(values: list[float | None], direction: str) -> None:
    worst = 20.0 if direction == "min" else 0.0
    found = best_of(values, direction, worst, seconds=12.0, draws=10)  # type: ignore[arg-type]
    pick = min if direction == "min" else max
    for k in range(1, len(values) + 1):
        subsets = list(itertools.combinations(values, k))
        bests = [pick([worst if v is None else v for v in s]) for s in subsets]
        assert found.expected[k - 1] == pytest.approx(float(np.mean(bests)))
        assert found.failed[k - 1] == pytest.approx(np.mean([all(v is None for v in s) for s in subsets]))
        assert found.seconds[k - 1] == pytest.approx(12.0 * k / len(values))
        assert found.low[k - 1] <= found.expected[k - 1] <= found.high[k - 1]


def test_chances_sum_to_one() -> None:
    assert order_chances(9).sum(axis=1) == pytest.approx(np.ones(9))
    assert order_chances(9)[-1].tolist() == [1.0] + [0.0] * 8, "with the whole pool the best is the best"


def test_lucky_and_unlucky() -> None:
    found = best_of([1.0, 2.0, 3.0, 4.0, None], "min", 10.0)
    assert found.unlucky[0] == math.inf, "one in five finds nothing with one trial"
    assert found.lucky[0] == 1.0
    assert found.unlucky[4] == found.lucky[4] == 1.0
    assert best_of([1.0, None], "max", 0.0).unlucky[0] == -math.inf


def test_more_trials_are_never_worse() -> None:
    values = np.random.default_rng(0).lognormal(size=12).tolist()
    found = best_of([*values, None, None], "min", max(values))
    assert (np.diff(found.expected) <= 1e-12).all()
    assert (np.diff(found.failed) <= 0.0).all()


def test_a_metric_that_spans_decades() -> None:
    found = best_of([1e-6, 1e-2, None], "min", 1.0, geometric=True)
    assert found.expected[0] == pytest.approx(10 ** ((-6 - 2 + 0) / 3))
    assert found.low[0] < found.expected[0] < found.high[0]


def test_the_band_covers_the_search_space() -> None:
    """Uniform metrics: the expected best of k is 1 / (k + 1)."""
    rng = np.random.default_rng(5)
    inside = np.zeros(3)
    for _ in range(150):
        found = best_of(rng.random(20).tolist(), "min", 1.0, draws=300)
        for place, k in enumerate((1, 3, 6)):
            inside[place] += found.low[k - 1] <= 1.0 / (k + 1) <= found.high[k - 1]
    assert (inside / 150 >= 0.85).all()


@pytest.mark.parametrize(
    ("values", "worst", "geometric"), [([], 1.0, False), ([math.nan], 1.0, False), ([0.0], 1.0, True)]
)
def test_bad_pools(values: list[float], worst: float, geometric: bool) -> None:
    with pytest.raises(ValueError, match=r"empty|finite|positive"):
        best_of(values, "min", worst, geometric=geometric)
