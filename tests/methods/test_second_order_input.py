"""What Newton and its kin keep, whoever calls them: saved states, skipped steps, frozen parameters, bad input."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nets import Net, leaf
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError, UnmetNeedError
from curvebench.methods.conjugate_gradient_torch import ConjugateGradient
from curvebench.methods.gns_torch import GNS
from curvebench.methods.hessian_free_torch import HessianFree
from curvebench.methods.joint_torch import JointOptimizer
from curvebench.methods.levenberg_marquardt_torch import LevenbergMarquardt
from curvebench.methods.newton_torch import DiagonalNewton, Newton

Make = Callable[..., JointOptimizer]
ALL: dict[str, Make] = {
    "newton": Newton, "diagonal-newton": DiagonalNewton, "levenberg-marquardt": LevenbergMarquardt,
    "conjugate-gradient": ConjugateGradient, "hessian-free": HessianFree, "gns": GNS,
}  # fmt: skip
every = pytest.mark.parametrize("name", ALL)


@pytest.mark.parametrize(("name", "given"), [*((n, {}) for n in ALL), ("conjugate-gradient", {"history": 2})])
def test_a_saved_state_continues_with_the_same_bits(name: str, given: dict[str, Any]) -> None:
    one, other = Net(), Net()
    first, second = (ALL[name](n.model.parameters(), **given) for n in (one, other))
    for _ in range(3):
        first.step(one.closure)
    file = io.BytesIO()
    torch.save({"model": one.model.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    second.step(other.closure)
    saved = torch.load(file)
    other.model.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    for _ in range(3):
        first.step(one.closure)
        second.step(other.closure)
    assert np.array_equal(one.vector(), other.vector())
    assert first.notes() == second.notes()


@every
def test_what_is_not_finite_is_skipped_and_counted(name: str) -> None:
    net = Net()
    opt = ALL[name](net.model.parameters())
    opt.step(net.closure)
    before = net.vector()
    good, net.x = net.x, net.x * float("nan")
    opt.step(net.closure)
    assert np.array_equal(net.vector(), before)
    assert opt.skipped == 1
    assert opt.notes()[0].startswith("1 of 2 steps skipped")
    net.x = good
    opt.step(net.closure)
    assert np.isfinite(net.vector()).all()
    assert opt.skipped == 1


@pytest.mark.parametrize("make", [Newton, DiagonalNewton])
def test_a_singular_hessian_is_skipped_and_counted(make: Make) -> None:
    x = leaf([1.0, 2.0])
    opt = make([x])
    opt.step(lambda: x[0] ** 2 + x[1])  # linear in the second coordinate
    assert x.detach().tolist() == [1.0, 2.0]
    assert opt.skipped == 1
    Newton([x], damping=0.5).step(lambda: x[0] ** 2 + x[1])
    assert x.detach().tolist() == pytest.approx([1 - 2 / 2.5, 2 - 1 / 0.5])


@every
def test_frozen_parameters_stay(name: str) -> None:
    net = Net()
    net.model[0].weight.requires_grad_(False)
    before = net.model[0].weight.clone()
    ALL[name](net.model.parameters()).step(net.closure)
    assert torch.equal(net.model[0].weight, before)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("newton", {"lr": -0.5}, r"Newton: lr = -0.5: must lie in \[0, inf\)"),
    ("newton", {"damping": -1.0}, r"damping = -1.0: must lie in \[0, inf\)"),
    ("newton", {"curvature": "fisher"}, "curvature = 'fisher': must be one of 'hessian', 'absolute'"),
    ("newton", {"max_dimension": 0}, r"max_dimension = 0: must lie in \[1, inf\)"),
    ("diagonal-newton", {"lr": float("nan")}, r"DiagonalNewton: lr = nan: must lie in \[0, inf\)"),
    ("levenberg-marquardt", {"damping": 0.0}, r"damping = 0.0: must lie in \(0, inf\)"),
    ("levenberg-marquardt", {"scaling": "none"}, "must be one of 'identity', 'diagonal'"),
    ("levenberg-marquardt", {"max_tries": 0}, r"max_tries = 0: must lie in \[1, inf\)"),
    ("conjugate-gradient", {"restart": -1}, r"restart = -1: must lie in \[0, inf\)"),
    ("conjugate-gradient", {"history": -1}, r"history = -1: must lie in \[0, inf\)"),
    ("conjugate-gradient", {"decrease": 0.5}, r"decrease = 0.5: must lie in \(0, 0.5\)"),
    ("hessian-free", {"damping": float("inf")}, r"damping = inf: must lie in \(0, inf\)"),
    ("hessian-free", {"cg_steps": 0}, r"cg_steps = 0: must lie in \[1, inf\)"),
    ("hessian-free", {"decay": 1.5}, r"decay = 1.5: must lie in \[0, 1\]"),
    ("gns", {"gamma": 0.0}, r"gamma = 0.0: must lie in \(0, inf\)"),
    ("gns", {"curvature": "exact"}, "must be one of 'hessian', 'ggn'"),
    ("gns", {"metric": torch.eye(2)}, r"metric of shape \(2, 2\): must be \(3, 3\)"),
    ("gns", {"metric": "fisher"}, "metric = 'fisher': must be one of 'identity'"),
    ("gns", {"metric": -torch.eye(3)}, "must be symmetric and positive definite"),
]


@pytest.mark.parametrize(("name", "given", "message"), BAD)
def test_bad_values_are_refused_at_construction(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        ALL[name]([leaf(np.ones(3))], **given)


@every
def test_bad_parameters_are_refused_at_construction(name: str) -> None:
    make = ALL[name]
    with pytest.raises(TypeError, match=r"torch.bfloat16: must be float32 or float64"):
        make([torch.ones(2, dtype=torch.bfloat16, requires_grad=True)])
    with pytest.raises(CurvebenchError, match="2 parameter groups: all are one vector"):
        make([{"params": [leaf([1.0])]}, {"params": [leaf([1.0])]}])
    with pytest.raises(CurvebenchError, match="they must agree"):
        make([leaf([1.0]), torch.ones(1, requires_grad=True)])
    with pytest.raises(CurvebenchError, match="no parameter requires a gradient"):
        make([torch.ones(1)])


@pytest.mark.parametrize("name", ["newton", "diagonal-newton", "levenberg-marquardt", "gns"])
def test_more_parameters_than_stated_are_refused(name: str) -> None:
    with pytest.raises(UnmetNeedError, match=r"d = 5000 parameters: .* at most max_dimension = 4096"):
        ALL[name]([torch.ones(5000, requires_grad=True)])
    ALL[name]([torch.ones(5000, requires_grad=True)], max_dimension=5000)


@every
def test_a_closure_is_needed_and_its_kind_is_said(name: str) -> None:
    net = Net()
    opt = ALL[name](net.model.parameters())
    with pytest.raises(CurvebenchError, match=r"step\(\) needs a closure"):
        opt.step()
    with pytest.raises(CurvebenchError, match="detached"):
        opt.step(lambda: net.closure()[0].detach())
    with pytest.raises(CurvebenchError, match="returned float"):
        opt.step(lambda: 1.0)
    if name in ("levenberg-marquardt", "hessian-free"):
        with pytest.raises(CurvebenchError, match=r"return \(loss, outputs\)"):
            opt.step(lambda: net.closure()[0])

    def backward() -> Tensor:
        loss = net.closure()[0]
        loss.backward()
        return loss

    if name not in ("levenberg-marquardt", "hessian-free"):
        with pytest.raises(CurvebenchError, match=r"does not call backward"):
            opt.step(backward)


@every
def test_float32_works(name: str) -> None:
    net = Net(torch.float32)
    opt = ALL[name](net.model.parameters(), **({"damping": 1.0} if "newton" in name else {}))
    losses = [float(opt.step(net.closure)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert opt.skipped == 0
