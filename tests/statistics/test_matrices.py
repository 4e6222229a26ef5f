"""How well a matrix stands for another: closed forms, invariances, and what does not exist."""

from __future__ import annotations

import numpy as np
import pytest

from curvebench.statistics.matrices import Truth

RNG = np.random.default_rng(0)
D = 12
J = RNG.standard_normal((30, D)) * np.logspace(0, -2, D)
F = J.T @ J / 30
G = RNG.standard_normal(D)
LAM = 1e-3 * float(np.trace(F))
TRUTH = Truth(F, G, LAM, (slice(0, 5), slice(5, D)))


def test_the_truth_stands_for_itself() -> None:
    found = TRUTH.compare(F)
    for value in (found.relative_error, found.block_error, found.top_error, found.spectrum):
        assert value == pytest.approx(0.0, abs=1e-14)
    for value in (found.inverse_error, found.residual):
        assert value == pytest.approx(0.0, abs=1e-11)
    for value in (found.trace_ratio, found.cosine, found.eff, found.scale):
        assert value == pytest.approx(1.0, abs=1e-12)
    largest = float(np.linalg.eigvalsh(F)[-1])
    assert found.stability == pytest.approx(largest / (largest + LAM), rel=1e-12)


def test_the_scaled_identity_has_its_closed_forms() -> None:
    c = float(np.trace(F)) / D
    found = TRUTH.compare(c * np.eye(D))
    assert found.relative_error == pytest.approx(np.sqrt(1 - np.trace(F) ** 2 / (D * np.sum(F * F))), rel=1e-12)
    assert found.trace_ratio == pytest.approx(1.0)
    damped = F + LAM * np.eye(D)
    assert found.eff == pytest.approx((G @ G) ** 2 / ((G @ damped @ G) * (G @ np.linalg.solve(damped, G))), rel=1e-10)
    assert found.scale == pytest.approx((G @ G) * (c + LAM) / (G @ damped @ G), rel=1e-10)
    assert found.stability == pytest.approx(np.linalg.eigvalsh(F)[-1] / (c + LAM), rel=1e-10)


def test_eff_has_no_scale_and_the_other_measures_do() -> None:
    x = RNG.standard_normal(D)
    one, other = TRUTH.along(x), TRUTH.along(7.0 * x)
    assert other["eff"] == pytest.approx(one["eff"], rel=1e-12)
    assert other["cosine"] == pytest.approx(one["cosine"], rel=1e-12)
    assert other["scale"] == pytest.approx(one["scale"] / 7.0, rel=1e-12)
    assert 0 <= one["eff"] <= 1


def test_blocks_see_only_what_is_inside_them() -> None:
    block = F.copy()
    block[:5, 5:] = block[5:, :5] = 0
    found = TRUTH.compare(block)
    assert found.block_error == 0
    assert found.relative_error == pytest.approx(np.sqrt(2 * np.sum(F[:5, 5:] ** 2) / np.sum(F * F)))


def test_an_indefinite_truth_is_inverted_by_its_absolute_eigenvalues() -> None:
    values, vectors = np.linalg.eigh(F)
    signs = np.where(np.arange(D) % 3 == 0, -1.0, 1.0)
    H, absolute = (vectors * (values * signs)) @ vectors.T, F
    truth = Truth(H, G, LAM)
    assert truth.indefinite
    found = truth.compare(absolute)
    assert found.eff == pytest.approx(1.0)
    assert found.inverse_error == pytest.approx(0.0, abs=1e-10)
    assert found.relative_error is not None
    assert found.relative_error > 0.1  # as a matrix it is another
    assert truth.compare(H - 10 * np.eye(D)).stability is None  # not positive definite with this damping


def test_what_does_not_exist_is_none() -> None:
    vanished = Truth(F, 1e-20 * G, LAM, negligible=1e-12).compare(F)
    assert vanished.eff is None
    assert vanished.inverse_error is None
    assert vanished.relative_error == 0
    nothing = Truth(np.zeros((D, D)), G, LAM).compare(F)
    assert nothing.relative_error is None
    assert nothing.trace_ratio is None
    assert nothing.eff is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((F[:3], G, LAM), r"F \(3, 12\) and g \(12,\): must be"),
        ((F, np.full(D, np.nan), LAM), "must be finite"),
        ((F, G, 0.0), r"damping = 0.0: must lie in \(0, inf\)"),
    ],
)
def test_bad_input_raises(arguments: tuple[np.ndarray, np.ndarray, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Truth(*arguments)
    with pytest.raises(ValueError, match=r"C \(2, 2\): must be finite"):
        TRUTH.compare(np.eye(2))
