"""A mean is printed no finer than its interval."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvebench.report.numbers import plain, short, text
from curvebench.statistics import Estimate, interval, to_target


def around(mean: float, half: float, **more: object) -> Estimate:
    return Estimate(mean, mean - half, mean + half, 3, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("estimate", "printed"),
    [
        (around(12.3456, 0.4), "12.3 ± 0.4"),
        (around(12.3456, 0.15), "12.35 ± 0.15"),
        (around(12345.6, 1234.0), "12300 ± 1200"),
        (around(12345.6, 400.0), "12300 ± 400"),
        (around(310.0, 25.0), "310 ± 25"),
        (around(34.2, 400.0), "34 ± 400"),
        (around(0.0123, 0.0004), "0.0123 ± 0.0004"),
        (around(1.2345e-5, 3e-7), "(1.23 ± 0.03)e-05"),
        (around(2.5e7, 1e6), "(2.50 ± 0.10)e+07"),
        (around(-0.5, 0.03), "-0.50 ± 0.03"),
        (around(0.0, 0.02), "0.000 ± 0.020"),
        (around(-0.001, 0.3), "-0.001 ± 0.3"),
        (around(140.0, 0.0), "140 ± 0"),
        (around(0.95, 0.0), "0.9500 ± 0"),
        (Estimate(5.0, 4.0, 7.0, 12), "5.0 [4.0, 7.0]"),
        (Estimate(3.14159, None, None, 1), "3.14"),
        (Estimate(1e-4, 1e-5, 1e-3, 3, geometric=True), "1.0e-04 ×/÷ 10"),
        (Estimate(1.23456e-4, 1.23456e-4 / 1.04, 1.23456e-4 * 1.04, 3, geometric=True), "1.23e-04 ×/÷ 1.04"),
        (Estimate(0.5, 0.25, 1.0, 3, geometric=True), "0.50 ×/÷ 2"),
        (Estimate(0.5, 5e-7, 5e5, 3, geometric=True), "0.50 ×/÷ 1e+06"),
        (Estimate(0.5, None, None, 1, geometric=True), "0.50"),
        (interval([1e-30, 1e30], geometric=True), "1 ×/÷ 3e+307"),
        (around(320.0, 50.0, censored=1), "≥ 320 ± 50"),
        (to_target([], [500.0, 500.0]), "> 500"),
        (to_target([], [0.0112]), "> 0.0112"),
        (Estimate(float("nan"), None, None, 0), "-"),
        (None, "-"),
    ],
)
def test_estimates(estimate: Estimate | None, printed: str) -> None:
    assert text(estimate) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [(None, "-"), (float("nan"), "-"), (0.0, "0"), (500.0, "500"), (0.04049, "0.0405"), (1.5e-7, "1.50e-07")],
)
def test_numbers_without_interval(value: float | None, printed: str) -> None:
    assert plain(value) == printed


def test_settings() -> None:
    assert [short(v) for v in (None, 1e-3, 500, 1e-5, 20.0)] == ["-", "0.001", "500", "1e-05", "20"]


@given(st.lists(st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-12), min_size=1, max_size=12))
def test_what_is_printed_lies_near_the_mean(values: list[float]) -> None:
    estimate = interval(values)
    printed = text(estimate)
    match = re.match(r"\(?(-?[\d.]+)(?:.*\)e([+-]\d+)|e([+-]\d+))?", printed)
    assert match is not None, printed
    mean = float(match[1]) * 10.0 ** int(match[2] or match[3] or 0)
    half = 0.0 if estimate.high is None else estimate.high - estimate.mean
    low = 0.0 if estimate.low is None else estimate.mean - estimate.low
    assert abs(mean - estimate.mean) <= 0.006 * abs(estimate.mean) + 0.5 * max(half, low) + 1e-300, printed
