"""Interval notation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvebench.cards import Interval


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("(0, inf)", [1e-300, 1, 1e300], [0, -1, math.inf, math.nan]),
        ("[0, 1)", [0, 0.5, math.nextafter(1, 0)], [1, -1e-300, math.nan]),
        ("(0,1]", [1], [0, 1.0000001]),
        ("[-1.5e1, -.5]", [-15, -0.5], [-15.1, 0]),
        ("(-inf, inf)", [0, -1e308], [math.inf, -math.inf, math.nan]),
        ("[2, 2]", [2], [1, 3]),
    ],
)
def test_membership(text: str, inside: list[float], outside: list[float]) -> None:
    interval = Interval.parse(text)
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("> 0", "must be an interval such as (0, inf) or [0, 1)"),
        ("(0; 1)", "must be an interval such as (0, inf) or [0, 1)"),
        ("(0, nan)", "must be an interval such as (0, inf) or [0, 1)"),
        ("(1, 0)", "must not be empty: the lower end lies above the upper one"),
        ("(1, 1]", "must not be empty: the lower end lies above the upper one"),
        ("(0, inf]", "must be open at an infinite end: (0, inf), not (0, inf]"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Interval.parse(text)
    assert str(caught.value) == message


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_closed_intervals_are_order(low: float, high: float, value: float) -> None:
    low, high = sorted((low, high))
    assert (value in Interval.parse(f"[{low!r}, {high!r}]")) == (low <= value <= high)
