"""Formulas: arithmetic and nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvebench import cards
from curvebench.cards.formula import variables_of
from curvebench.errors import CardError

ALLOWED = "allowed are numbers, + - * / **, parentheses, max, min, ceil, log2 and named variables"


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("2*history*d + 2*d", 2 * 10 * 7 + 2 * 7),
        ("d**2 / 2", 24.5),
        ("-d + +history", 3),
        ("max(d, history, 3) - min(d, 1)", 9),
        ("ceil(d / 2) + log2(8)", 7),
        ("(d + 1) * 1e-1", 0.8),
        (" d ", 7),
        (3, 3),
        (0.5, 0.5),
    ],
)
def test_value(formula: str | float, value: float) -> None:
    assert cards.evaluate(formula, d=7, history=10) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("2 *", f"'2 *': not a formula: {ALLOWED}"),
        ("", f"'': not a formula: {ALLOWED}"),
        ("d.real", f"'d.real': 'd.real' is not allowed: {ALLOWED}"),
        ("__import__('os')", f"\"__import__('os')\": \"__import__('os')\" is not allowed: {ALLOWED}"),
        ("abs(d)", f"'abs(d)': 'abs(d)' is not allowed: {ALLOWED}"),
        ("max.__call__(d)", f"'max.__call__(d)': 'max.__call__(d)' is not allowed: {ALLOWED}"),
        ("d % 2", f"'d % 2': 'd % 2' is not allowed: {ALLOWED}"),
        ("d // 2", f"'d // 2': 'd // 2' is not allowed: {ALLOWED}"),
        ("~d", f"'~d': '~d' is not allowed: {ALLOWED}"),
        ("True", f"'True': 'True' is not allowed: {ALLOWED}"),
        ("'d'", f"\"'d'\": \"'d'\" is not allowed: {ALLOWED}"),
        ("[d][0]", f"'[d][0]': '[d][0]' is not allowed: {ALLOWED}"),
        ("1j", f"'1j': '1j' is not allowed: {ALLOWED}"),
        ("d if d else 1", f"'d if d else 1': 'd if d else 1' is not allowed: {ALLOWED}"),
        ("lambda: d", f"'lambda: d': 'lambda: d' is not allowed: {ALLOWED}"),
        ("max(*d, 1)", f"'max(*d, 1)': '*d' is not allowed: {ALLOWED}"),
        ("max(d)", "'max(d)': max takes at least two arguments"),
        ("ceil(d, 2)", "'ceil(d, 2)': ceil takes one argument"),
        ("log2()", "'log2()': log2 takes one argument"),
        ("dd + 1", "'dd + 1': unknown variable 'dd': did you mean 'd'?"),
        ("1 / (d - 7)", "'1 / (d - 7)': cannot be computed: float division by zero"),
        ("log2(0)", "'log2(0)': cannot be computed: math domain error"),
        ("1e308 * 10", "'1e308 * 10': is inf, must be finite"),
    ],
)
def test_refused(formula: str, message: str) -> None:
    with pytest.raises(CardError) as caught:
        cards.evaluate(formula, d=7)
    assert str(caught.value) == message


def test_a_tower_of_powers_ends_at_once() -> None:
    with pytest.raises(CardError, match="cannot be computed"):
        cards.evaluate("9**9**9**9", d=1)


def test_a_complex_value_is_refused() -> None:
    with pytest.raises(CardError, match="cannot be computed"):
        cards.evaluate("(-1)**0.5")


@pytest.mark.parametrize("formula", ["(" * 5000 + "d" + ")" * 5000, "-" * 200 + "d"])
def test_deep_nesting_is_refused(formula: str) -> None:
    with pytest.raises(CardError, match=r"\.\.\.: longer than 200 characters$"):
        cards.evaluate(formula, d=1)


@pytest.mark.parametrize("formula", ["(" * 99 + "d" + ")" * 99, "-" * 198 + "d"])
def test_deep_nesting_that_is_allowed_works(formula: str) -> None:
    assert cards.evaluate(formula, d=1) == 1


def test_variables() -> None:
    assert variables_of("max(d, 2*m) ** -k") == {"d", "m", "k"}
    assert variables_of(4) == set()


LEAVES = st.sampled_from(["d", "m"]) | st.integers(0, 9).map(str) | st.floats(0.1, 10).map(repr)
FORMULAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda t: f"-{t}")
        | st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})")
    ),
    max_leaves=12,
)


@given(FORMULAS, st.floats(-5, 5), st.floats(-5, 5))
def test_agrees_with_python(formula: str, d: float, m: float) -> None:
    expected = eval(formula, {"max": max}, {"d": d, "m": m})
    assert math.isclose(cards.evaluate(formula, d=d, m=m), expected, rel_tol=1e-12, abs_tol=1e-12)
    assert variables_of(formula) <= {"d", "m"}
