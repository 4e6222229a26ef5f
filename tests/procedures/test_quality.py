"""Curvature quality: where an approximation is exact it is found exact, and each is what its method uses."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from curvebench import cards
from curvebench.errors import CurvebenchError, UnknownNameError
from curvebench.kernels.mfac_torch import SlidingWindow
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.eva_torch import Eva
from curvebench.methods.kfac_torch import KFAC
from curvebench.procedures.certify import lab
from curvebench.procedures.quality import _built, approximations, measure, suitable
from curvebench.procedures.quality.approximations import Built, Given
from curvebench.procedures.quality.site import Site, array
from curvebench.spec import Query
from curvebench.statistics.matrices import Quality, Truth
from curvebench.store.quality import read_quality, write_quality
from curvebench.tasks.problem import Split

KNOWN = {one.name: one for one in approximations()}
LAYERED = ("kfac-type-2", "kfac-mc", "kfac-empirical", "ekfac-type-2", "ekfac-empirical", "eva")


@functools.cache
def site(name: str, samples: int = 60) -> Site:
    """The task at its first point, on its first samples."""
    problem = lab.problem(name, 0, batch="full")
    cut = replace(problem, train=Split(*(a[:samples] for a in problem.train)))
    return Site(cards.task(name), cut, dict(cut.parameters), "init")


@functools.cache
def truth(name: str) -> tuple[Truth, Given]:
    here = site(name)
    ggn, hessian = here.ggn(), here.hessian()
    lam = 1e-3 * float(np.trace(ggn))
    return Truth(ggn, here.gradient, lam, here.layers()), Given(ggn, hessian, lam)


@functools.cache
def built(name: str, approximation: str) -> Built:
    found: Built = site(name).kept(lambda here: KNOWN[approximation].build(here, truth(name)[1]))
    return found


def quality(name: str, approximation: str) -> Quality:
    return truth(name)[0].compare(*built(name, approximation))


def test_kfac_is_exact_inside_the_layers_of_a_deep_linear_network() -> None:
    kfac, blocks = quality("deep-linear", "kfac-type-2"), quality("deep-linear", "block-diagonal")
    assert kfac.block_error is not None
    assert kfac.block_error < 1e-12
    assert kfac.eff == pytest.approx(blocks.eff, rel=1e-9)
    assert kfac.relative_error == pytest.approx(blocks.relative_error, rel=1e-9)
    assert blocks.relative_error is not None
    assert blocks.relative_error > 0.1  # what is outside the blocks is lost


def test_the_diagonal_is_exact_where_curvature_is_diagonal() -> None:
    for name in ("diagonal", "diagonal-hessian", "adahessian"):  # |H z| = |diag H| there, whatever the probe
        found = quality("quadratic-aligned", name)
        assert found.relative_error == pytest.approx(0.0, abs=1e-10)
        assert found.eff == pytest.approx(1.0, abs=1e-9)
        assert found.scale == pytest.approx(1.0, abs=1e-9)


def test_the_identity_has_its_closed_form() -> None:
    F = truth("digits-mlp")[1].ggn
    found = quality("digits-mlp", "identity")
    assert found.trace_ratio == pytest.approx(1.0)
    assert found.relative_error == pytest.approx(np.sqrt(1 - np.trace(F) ** 2 / (len(F) * np.sum(F * F))), rel=1e-10)


@pytest.mark.parametrize("name", LAYERED)
def test_the_methods_own_direction_is_that_of_the_matrix(name: str) -> None:
    here, (known, given) = site("digits-mlp"), truth("digits-mlp")

    def direction(at: Site) -> Any:
        model, base = at.task.objective.module, torch.optim.SGD(at.parameters, lr=1.0)
        kind, _, fisher = name.partition("-")
        method: Any
        if kind == "eva":
            method = Eva(model, base=base, damping=given.damping, kl_clip=0.0)
        else:
            method = {"kfac": KFAC, "ekfac": EKFAC}[kind](model, base=base, damping=given.damping, fisher=fisher)
        method.oracle = at.oracle
        method.precondition()
        return array([p.grad for p in at.parameters])

    wanted = known.solve(built("digits-mlp", name).matrix)
    assert wanted is not None
    assert np.allclose(here.kept(direction), wanted, rtol=1e-8, atol=1e-10 * np.abs(wanted).max())


@pytest.mark.parametrize(("name", "size"), [("mfac", 1), ("mfac-batch", 32)])
def test_mfac_is_exact_to_its_own_formula(name: str, size: int) -> None:
    here, (known, given) = site("deep-linear"), truth("deep-linear")
    window = SlidingWindow(64, here.d, given.damping, dtype=torch.float64)
    for _ in here.batches(64, size):
        point = here.oracle.at(needs=(Query.GRADIENT,))
        window.push(torch.cat([g.reshape(-1) for g in point.gradient()]))
    found = built("deep-linear", name).matrix
    assert np.allclose(found, array(window.gradients.T @ window.gradients / 64), atol=1e-14)
    direct = array(window.solve(torch.from_numpy(here.gradient)))
    assert np.allclose(known.solve(found), direct, rtol=1e-8)


def test_identities_of_the_spec_hold() -> None:
    assert quality("digits-mlp", "ekfac-type-2").trace_ratio == pytest.approx(1.0, rel=1e-12)  # tr EKFAC = tr F
    assert quality("digits-mlp", "gauss-newton").eff == pytest.approx(1.0, rel=1e-9)
    rows = built("digits-mlp", "empirical-fisher").matrix
    assert np.linalg.matrix_rank(rows) <= 60
    F, H = truth("softmax-digits")[1][:2]
    assert np.abs(F - H).max() < 1e-12  # the logits are linear
    assert np.abs(built("softmax-digits", "absolute-hessian").matrix - F).max() < 1e-12


@pytest.mark.parametrize("name", ["shampoo", "mkor", "kfac-type-2"])
def test_a_convolution_has_curvature_in_every_parameter(name: str) -> None:
    matrix = built("digits-convolution", name).matrix
    assert np.isfinite(matrix).all()
    assert np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12 * np.abs(matrix).max())
    assert (np.diag(matrix) >= 0).all()
    assert quality("digits-convolution", name).eff is not None


def test_nothing_moves_and_draws_repeat() -> None:
    here = site("deep-linear")
    before = [p.detach().clone() for p in here.parameters]
    again = here.kept(lambda at: KNOWN["mkor"].build(at, truth("deep-linear")[1]))
    assert all(torch.equal(p, q) for p, q in zip(here.parameters, before, strict=True))
    assert np.array_equal(again.matrix, built("deep-linear", "mkor").matrix)
    assert all(p.grad is None for p in here.parameters)


@pytest.fixture(scope="module")
def content() -> Any:
    return measure("deep-linear", seeds=1, steps=10, dampings=(1e-3, 1e-1), names=("identity", "kfac-type-2"))


def test_a_measurement_is_a_file_of_its_own_schema(content: Any, tmp_path: Any) -> None:
    path = write_quality(tmp_path, content)
    assert read_quality(tmp_path) == [content]
    assert path.name == "deep-linear.json"
    assert len(content["cells"]) == 2 * 3 * 2 * 2  # approximations, checkpoints, truths, dampings
    ends = [c for c in content["cells"] if c["checkpoint"] == "end"]
    first = [c for c in content["cells"] if c["checkpoint"] == "init"]
    assert ends[0]["loss"] < first[0]["loss"]
    kfac = next(c for c in first if c["approximation"] == "kfac-type-2")
    assert kfac["block_error"] < 1e-12
    assert kfac["calls"]["layer_statistics"] == 5  # four outputs, and the query itself


def test_what_a_task_refuses_is_unsupported_with_its_sentence() -> None:
    found, calls, status, reason = _built(KNOWN["kfac-mc"], site("pinn-poisson"), Given(np.eye(1), np.eye(1), 1.0))
    assert (found, calls, status) == (None, {}, "unsupported")
    assert reason.startswith("needs layer_statistics: each weight acts on value, gradient and Laplacian at once")


def test_bad_input_is_refused() -> None:
    with pytest.raises(CurvebenchError, match="quality: seeds = 0, steps = 150: must be at least 1 and 10"):
        measure("deep-linear", seeds=0)
    with pytest.raises(CurvebenchError, match=r"dampings = \[-1.0\]: must be positive"):
        measure("deep-linear", dampings=(-1.0,))
    with pytest.raises(UnknownNameError, match="kfac-type-3"):
        measure("deep-linear", names=("kfac-type-3",))
    why = suitable("digits-cnn")
    assert why is not None
    assert "has 9930 parameters: at most 3000" in why
