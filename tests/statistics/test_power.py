"""The smallest detectable difference: against SciPy's distributions, simulation and its inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from curvebench.statistics.power import detectable, seeds_needed, word


@pytest.mark.parametrize(("n", "power"), [(3, 0.8), (5, 0.8), (10, 0.9), (40, 0.5)])
def test_it_solves_the_noncentral_t(n: int, power: float) -> None:
    delta = detectable(2.0, n, power)
    limit = stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(limit, n - 1, delta / 2.0 * math.sqrt(n)) == pytest.approx(power, abs=1e-6)


def test_a_simulation_finds_it_as_often_as_promised() -> None:
    n, repeats = 5, 4000
    delta = detectable(1.0, n)
    x = np.random.default_rng(0).normal(delta, 1.0, size=(repeats, n))
    found = (stats.ttest_1samp(x, 0.0, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=4.0 * math.sqrt(0.16 / repeats))


def test_more_seeds_see_less_and_more_comparisons_see_more() -> None:
    sizes = [detectable(1.0, n) for n in (2, 3, 5, 10, 30)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.6 < sizes[0]
    assert detectable(1.0, 5, comparisons=10) > detectable(1.0, 5)
    assert detectable(3.0, 5) == pytest.approx(3.0 * detectable(1.0, 5))
    assert detectable(0.0, 5) == 0.0
    assert detectable(1.0, 1) == math.inf


def test_seeds_needed_is_the_inverse() -> None:
    for n in (3, 7, 25):
        assert seeds_needed(1.0, detectable(1.0, n) * 1.0001) == n
    assert seeds_needed(1.0, 1e-6, most=50) == 51
    with pytest.raises(ValueError, match="positive"):
        seeds_needed(1.0, 0.0)


@pytest.mark.parametrize("bad", [{"spread": -1.0}, {"power": 0.01}, {"alpha": 0.9}, {"comparisons": 0}])
def test_bad_input(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        detectable(**{"spread": 1.0, "n": 5, **bad})  # type: ignore[arg-type]


def test_words() -> None:
    assert [word(n) for n in (1, 2, 3, 4, 5, 9, 10)] == ["nothing", "nothing", "look", "look", "claim", "claim", "rank"]
