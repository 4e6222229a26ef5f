"""The verdict rule at its edges, its order, and the n that it asks for against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curvebench.statistics.verdict import MOST, Verdict, decide, interval90, needed, side, verdict, where

TIGHT = (90.0, 90.1, 89.9, 90.05, 89.95)
LOW = (80.0, 80.1, 79.9, 80.05, 79.95)


def word(*arguments: object, **options: object) -> str:
    return verdict(*arguments, **options).word  # type: ignore[arg-type]


def test_without_numbers_it_was_not_run_whatever_else_is_missing() -> None:
    assert str(verdict(1.0, [], needs="needs 64 GPUs")) == "not run (needs 64 GPUs)"
    assert str(verdict(1.0, [], spread=0.1, reduced=True, needs="needs ImageNet")) == "not run (needs ImageNet)"


def test_with_neither_spread_nor_margin_it_is_not_comparable() -> None:
    found = verdict(90.0, TIGHT)
    assert str(found) == "not comparable (no spread, no margin)"
    assert found.difference == pytest.approx(0.0)
    assert found.margin is None
    assert word(90.0, TIGHT, baseline=80.0, differences=(10.0, 10.0)) == "not comparable"


def test_reproduced_inside_the_larger_of_the_margins() -> None:
    assert str(verdict(90.0, TIGHT, spread=0.1)) == "reproduced"
    assert verdict(90.0, TIGHT, spread=0.1).margin == 0.2
    assert verdict(90.0, TIGHT, spread=0.1, margin=0.5).margin == 0.5
    assert verdict(90.0, TIGHT, spread=0.3, margin=0.5).margin == 0.6
    assert word(90.2, TIGHT, margin=0.3) == "reproduced"
    assert word(90.2, TIGHT, margin=0.2) == "cannot tell"


def test_the_interval_is_students_at_90_per_cent() -> None:
    found = verdict(90.0, TIGHT, margin=1.0)
    half = stats.t.ppf(0.95, 4) * np.std(TIGHT, ddof=1) / math.sqrt(5)
    assert (found.low, found.high) == (pytest.approx(-half), pytest.approx(half))
    assert found.n == 5


def test_wholly_outside_is_partly_or_not_reproduced() -> None:
    assert word(90.0, LOW, margin=1.0) == "not reproduced"
    better = {"baseline": 85.0, "margin": 1.0}
    assert word(90.0, LOW, differences=(4.0, 5.0, 6.0), **better) == "partly"
    assert word(90.0, LOW, differences=(-4.0, -5.0, -6.0), **better) == "not reproduced"
    assert word(90.0, LOW, differences=(-4.0, 5.0, 6.0), **better) == "not reproduced", "the interval holds zero"
    assert word(90.0, LOW, differences=(5.0,), **better) == "not reproduced", "one block has no interval"
    assert word(90.0, LOW, differences=(4.0, 5.0, 6.0), margin=1.0) == "not reproduced", "no baseline is named"
    worse = {"baseline": 95.0, "margin": 1.0}
    assert word(90.0, LOW, differences=(-4.0, -5.0, -6.0), **worse) == "partly", "the reported sign is minus"


def test_a_baseline_of_the_same_number_has_no_sign() -> None:
    assert word(90.0, LOW, margin=1.0, baseline=90.0, differences=(4.0, 5.0, 6.0)) == "not reproduced"


def test_the_sign_of_the_baseline_saves_nothing_that_lies_inside_or_across() -> None:
    assert word(90.0, TIGHT, margin=1.0, baseline=85.0, differences=(-4.0, -5.0, -6.0)) == "reproduced"
    assert word(90.0, (89.0, 92.0), margin=1.0, baseline=85.0, differences=(4.0, 5.0)) == "cannot tell"


def test_the_edges_of_the_margin_belong_to_it() -> None:
    assert where(-1.0, 1.0, 1.0) == "inside"
    assert where(-1.0, math.nextafter(1.0, 2.0), 1.0) == "across"
    assert where(1.0, 2.0, 1.0) == "across"
    assert where(math.nextafter(1.0, 2.0), 2.0, 1.0) == "outside"
    assert where(-2.0, -1.0, 1.0) == "across"
    assert where(-2.0, math.nextafter(-1.0, -2.0), 1.0) == "outside"
    assert where(None, None, 1.0) == "across"
    assert word(1.0, (2.0, 2.0), margin=1.0) == "reproduced", "no deviation, on the edge"
    assert word(1.0, (2.0, 2.0), spread=0.0) == "not reproduced", "a spread of nothing is a margin of nothing"
    assert word(2.0, (2.0, 2.0), spread=0.0) == "reproduced"


def test_one_run_cannot_tell_and_two_are_the_least() -> None:
    found = verdict(90.0, [90.0], margin=1.0)
    assert str(found) == "cannot tell (n too small; needs n = 2)"
    assert (found.low, found.high, found.needed) == (None, None, 2)


def test_a_mean_on_the_margin_is_decided_by_no_n() -> None:
    found = verdict(0.0, (0.5, 1.5), margin=1.0)
    assert str(found) == "cannot tell (no n would tell: the mean lies on the margin)"
    assert found.needed is None


def counted(difference: float, spread: float, margin: float, most: int) -> int | None:
    """Try every n."""
    for n in range(2, most + 1):
        half = stats.t.ppf(0.95, n - 1) * spread / math.sqrt(n)
        if where(difference - half, difference + half, margin) != "across":
            return n
    return None


@pytest.mark.parametrize("difference", [-3.0, -1.4, -0.9, -0.3, 0.0, 0.2, 0.8, 1.3, 2.5])
@pytest.mark.parametrize("spread", [0.05, 0.4, 1.0, 1.7])
def test_the_n_asked_for_is_the_least_that_counting_finds(difference: float, spread: float) -> None:
    assert needed(difference, spread, 1.0) == counted(difference, spread, 1.0, 1500)


def test_an_n_beyond_reason_is_none() -> None:
    assert needed(1.0 - 1e-6, 1.0, 1.0) is None
    assert needed(0.0, 0.0, 1.0) == 2
    assert MOST == 1_000_000


@given(st.floats(-5, 5), st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(0.01, 3), st.floats(0, 2))
@settings(max_examples=100, deadline=None)
def test_with_the_n_that_it_asks_for_the_same_numbers_decide(
    reported: float, measured: list[float], margin: float, spread: float
) -> None:
    found = verdict(reported, measured, spread=spread, margin=margin)
    assert found.word in {"reproduced", "not reproduced", "cannot tell"}
    if found.word == "cannot tell" and found.needed is not None and found.difference is not None:
        assert found.margin is not None
        s = float(np.std(measured, ddof=1))
        half = stats.t.ppf(0.95, found.needed - 1) * s / math.sqrt(found.needed)
        gap = abs(found.margin - abs(found.difference))
        assert half <= gap * (1 + 1e-9)
        assert found.needed > len(measured)


def test_at_a_reduced_scale_the_baselines_sign_decides_and_the_number_does_not() -> None:
    better = {"baseline": 85.0, "spread": 0.1, "reduced": True}
    assert word(90.0, LOW, differences=(4.0, 5.0, 6.0), **better) == "consistent (proxy)"
    assert word(90.0, LOW, differences=(-4.0, -5.0, -6.0), **better) == "inconsistent (proxy)"
    assert word(90.0, TIGHT, differences=(-4.0, -5.0, -6.0), **better) == "inconsistent (proxy)"
    assert word(90.0, LOW, differences=(-4.0, 5.0, 6.0), **better) == "consistent (proxy)"
    assert word(90.0, LOW, **better) == "consistent (proxy)"
    assert word(90.0, LOW, baseline=85.0, differences=(4.0, 5.0, 6.0), reduced=True) == "consistent (proxy)"


def test_at_a_reduced_scale_without_a_baseline_the_margin_decides() -> None:
    assert word(90.0, TIGHT, margin=1.0, reduced=True) == "consistent (proxy)"
    assert word(90.0, (80.0, 100.0), margin=1.0, reduced=True) == "consistent (proxy)"
    assert word(90.0, LOW, margin=1.0, reduced=True) == "inconsistent (proxy)"
    assert word(90.0, LOW, reduced=True) == "not comparable"


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=5),
    st.none() | st.floats(-5, 5),
    st.lists(st.floats(-5, 5), max_size=4),
    st.floats(0.01, 2),
)
@settings(max_examples=100, deadline=None)
def test_at_a_reduced_scale_only_the_two_proxy_words_are_given(
    measured: list[float], baseline: float | None, differences: list[float], margin: float
) -> None:
    found = verdict(1.0, measured, margin=margin, baseline=baseline, differences=differences, reduced=True)
    assert found.word in {"consistent (proxy)", "inconsistent (proxy)"}


def test_a_claim_is_held_against_its_bounds() -> None:
    assert str(decide([], high=2.0, needs="needs a study")) == "not run (needs a study)"
    assert decide((1.5, 1.6, 1.7), high=2.0).word == "reproduced"
    assert decide((2.5, 2.6, 2.7), high=2.0).word == "not reproduced"
    assert decide((1.0, 3.2), high=2.0).word == "cannot tell"
    assert decide((1.5, 1.6, 1.7), low=2.0).word == "not reproduced"
    assert decide((2.0, 2.0), high=2.0).word == "reproduced", "the bound belongs to it"
    assert decide((2.0, 2.0), high=2.0, strict=True).word == "cannot tell", "and not where it is strict"
    assert decide((2.0, 2.0), high=2.0, strict=True).needed is None
    assert decide((0.9, 1.0, 1.1), 0.5, 1.5).word == "reproduced"
    assert decide([1.0], high=2.0).needed == 2
    found = decide((1.5, 1.6, 1.7), high=2.0)
    half = stats.t.ppf(0.95, 2) * 0.1 / math.sqrt(3)
    assert (found.difference, found.low, found.high) == (
        pytest.approx(1.6), pytest.approx(1.6 - half), pytest.approx(1.6 + half)
    )  # fmt: skip


def test_a_claim_at_a_reduced_scale_has_the_two_words() -> None:
    assert decide((1.5, 1.6), high=2.0, reduced=True).word == "consistent (proxy)"
    assert decide([2.5], high=2.0, reduced=True).word == "consistent (proxy)", "one run contradicts nothing"
    assert decide((2.5, 2.51), high=2.0, reduced=True).word == "inconsistent (proxy)"


def test_the_n_that_a_claim_asks_for_is_the_least_that_counting_finds() -> None:
    values = (1.0, 3.2)
    s, mean = float(np.std(values, ddof=1)), 2.1
    found = decide(values, 0.0, 2.5)
    halves = (stats.t.ppf(0.95, n - 1) * s / math.sqrt(n) for n in range(2, 3000))
    assert found.needed == 2 + next(k for k, half in enumerate(halves) if mean + half <= 2.5 and mean - half >= 0.0)


def test_sides_and_intervals() -> None:
    assert side(()) == side((1.0,)) == side((-1.0, 2.0)) == 0.0
    assert side((1.0, 1.1)) == 1.0
    assert side((-1.0, -1.1)) == -1.0
    assert interval90((2.0,)) is None
    assert interval90((2.0, 2.0)) == (2.0, 2.0)
    assert str(Verdict("partly")) == "partly"


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low = 2\.0: must not be greater than high = 1\.0"):
        decide([1.0], 2.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reported": math.nan}, "reported = nan: must be finite"),
        ({"measured": [1.0, math.inf]}, "measured = inf: must be finite"),
        ({"baseline": math.inf}, "baseline = inf: must be finite"),
        ({"differences": [math.nan]}, "differences = nan: must be finite"),
        ({"spread": -1.0}, r"spread = -1\.0: must be finite and not negative"),
        ({"margin": 0.0}, r"margin = 0\.0: must be finite and positive"),
    ],
)
def test_bad_input_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verdict(**({"reported": 1.0, "measured": [1.0]} | options))  # type: ignore[arg-type]
