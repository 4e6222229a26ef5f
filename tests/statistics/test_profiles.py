"""Performance profiles: by hand, equal to Dolan and Moré's where nothing is censored, bands by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curvebench.statistics.profiles import GRID, area, censored, choose, plain

INF = math.inf


def test_dolan_and_more_by_hand() -> None:
    times = np.array([[1.0, 4.0, INF], [2.0, 2.0, INF], [INF, 9.0, math.nan]])
    rho = plain(times, np.array([1.0, 2.0, 4.0, 4.6]))
    assert rho == pytest.approx(np.array([[1, 2, 2, 2], [1, 2, 2, 2], [0, 0, 0, 1]]) / 3)


def test_the_area_of_steps() -> None:
    assert area(np.ones((1, 100))).tolist() == pytest.approx([1.0])
    # A step at the 51st of 100 points: 49 whole intervals and half of one.
    step = (np.arange(100) >= 50).astype(float)
    assert float(area(step)) == pytest.approx(49.5 / 99)


def test_choosing_a_trial() -> None:
    times = np.array([[9.0, 5.0, 7.0], [3.0, 4.0, math.nan], [math.nan] * 3])
    hit = np.array([[True, True, False], [False, False, False], [False] * 3])
    evaluations = np.array([[3.0, 8.0, 1.0], [1.0, 2.0, 9.0], [0.0] * 3])
    own, reached = choose(times, hit, evaluations)
    assert own[:2].tolist() == [9.0, 4.0], "fewest evaluations; a miss is followed as long as its longest trial"
    assert math.isnan(own[2])
    assert reached.tolist() == [True, False, False]
    assert choose(times, hit)[0][0] == 5.0, "least time"


def random_times(seed: int, shape: tuple[int, int, int, int]) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(sigma=0.5, size=shape)


def test_without_censoring_one_study_is_dolan_and_more_s() -> None:
    times = random_times(0, (4, 6, 1, 1))
    found = censored(times, np.ones(times.shape, bool), draws=10)
    assert found.band.rho == pytest.approx(plain(times[:, :, 0, 0]))
    assert found.score == pytest.approx(area(plain(times[:, :, 0, 0])))


def test_half_of_the_studies_count_half() -> None:
    times = np.ones((2, 1, 4, 1))
    hit = np.ones(times.shape, bool)
    hit[1, 0, 2:] = False
    times[1, 0, 2:] = 100.0
    found = censored(times, hit, draws=50)
    assert found.score == pytest.approx([1.0, 0.5])
    assert found.rank.tolist() == [1, 2]


def test_a_miss_is_followed_no_further_than_it_ran() -> None:
    times = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 2.0]).reshape(2, 1, 3, 1)
    times[1, 0, :, 0] = [2.0, 1.5, 2.0]
    hit = np.array([1, 1, 1, 1, 0, 1], bool).reshape(2, 1, 3, 1)
    # The second method hits at 2 twice and was stopped at 1.5 once: from 2 on Kaplan-Meier knows no miss.
    found = censored(times, hit, draws=20)
    assert found.band.rho[1][GRID < 2.0].max() == 0.0
    assert found.band.rho[1][GRID >= 2.0].min() == 1.0


def test_an_unsolved_task_counts_against_everybody() -> None:
    times = np.ones((2, 2, 2, 1))
    hit = np.ones(times.shape, bool)
    hit[:, 1] = False
    assert censored(times, hit, draws=20, resample_tasks=False).score == pytest.approx([0.5, 0.5])


def test_absent_cells_score_nothing() -> None:
    times = np.ones((2, 2, 3, 2))
    times[1, 1] = math.nan
    times[0, :, 2] = math.nan  # two studies where the other has three
    hit = np.isfinite(times)
    found = censored(times, hit, draws=50)
    assert found.score == pytest.approx([1.0, 0.5])


def test_more_trials_are_more_luck() -> None:
    """Trials are drawn again: the score of a method that lives from one lucky trial is unsure."""
    times = np.full((2, 4, 3, 5), 3.0)
    times[1] = 2.9
    times[0, :, :, 0] = 1.0
    found = censored(times, np.ones(times.shape, bool), draws=300, resample_tasks=False)
    assert found.score[0] == pytest.approx(1.0)
    assert found.low[0] < 0.95
    assert found.high[0] == pytest.approx(1.0)


def test_shapes() -> None:
    with pytest.raises(ValueError, match="methods, tasks, studies, trials"):
        censored(np.ones((2, 2, 2)), np.ones((2, 2, 2), bool))


def test_intervals_of_scores_cover() -> None:
    """Many tasks drawn from one distribution: the interval of a score holds the score of a hundred times as many."""
    rng = np.random.default_rng(7)

    def draw(tasks: int) -> np.ndarray:
        return rng.lognormal(mean=np.array([0.0, 0.4])[:, None, None, None], sigma=0.4, size=(2, tasks, 3, 1))

    large = draw(800)
    truth = censored(large, np.ones(large.shape, bool), draws=1).score
    inside = 0
    for _ in range(30):
        times = draw(20)
        found = censored(times, np.ones(times.shape, bool), draws=120)
        inside += int(((found.low <= truth) & (truth <= found.high)).sum())
    assert inside / 60 >= 0.83
