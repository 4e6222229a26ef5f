"""Every kernel has a case, and every case with a reference agrees with it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import curvebench.kernels
from curvebench.procedures.kernel_cases import Ready, cases, error

SUPPORT = {"precision_torch", "team_torch"}
WAITING = {"products_jax", "batched_products_jax", "per_sample_jax", "hutchinson_jax", "lanczos_jax", "mfac_static_jax"}
"""Kernels whose benchmark is not written yet."""
"""They compute nothing: one sets switches of torch, the other starts threads."""
FLOAT32 = 1e-3


def test_no_kernel_is_without_a_case() -> None:
    folder = Path(curvebench.kernels.__file__).parent
    files = {path.stem for path in folder.glob("*_torch.py")} | {path.stem for path in folder.glob("*_jax.py")}
    assert {case.file for case in cases().values()} == files - SUPPORT - WAITING


@pytest.mark.parametrize("name", sorted(cases()))
def test_a_case_runs_and_agrees_with_its_reference(name: str) -> None:
    case, device = cases()[name], "cpu"
    if case.framework == "jax":
        device = importlib.import_module("jax").devices("cpu")[0]
    ready = case.build(16, device)
    ready.call()
    assert (ready.reference is not None) == (case.largest_reference > 0)
    if ready.reference is not None:
        assert error(ready) < FLOAT32
    if ready.floor is not None:
        ready.floor()


def test_an_error_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="no reference"):
        error(Ready(lambda: None))


def test_the_error_is_relative_to_the_largest_element() -> None:
    assert error(Ready(lambda: [4.0, 1.0], lambda: [4.0, 2.0])) == 0.25
