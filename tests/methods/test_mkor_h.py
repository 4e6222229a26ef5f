"""MKOR-H: that it switches, when, and that nothing else does; state, the ledger, bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.methods import resolve
from curvebench.methods.mkor_h_torch import MKORH
from curvebench.methods.mkor_torch import MKOR
from curvebench.oracle import ledger
from curvebench.procedures.conformance import _Lab, conformance
from curvebench.tasks import toy


def seeded(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    return model


def data(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def net() -> nn.Sequential:
    return seeded(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(model: nn.Module, opt: Any, steps: range, losses: list[float] | None = None) -> None:
    """Gradients of a real loss; ``losses`` are what is reported instead of it."""
    for t in steps:
        opt.zero_grad()
        loss = (model(data(8, 4, seed=t)) - data(8, 3, seed=1000 + t)).square().sum(1).mean()
        loss.backward()
        if isinstance(opt, MKORH):
            opt.report(loss if losses is None else losses[t])
        opt.step()


def expected_switch(losses: list[float], patience: int, ratio: float, smoothing: float) -> int | None:
    """The rule by its definition: averages as sums over all past values, normalised by their weights."""

    def average(values: list[float]) -> float:
        w = [smoothing ** (len(values) - 1 - k) for k in range(len(values))]
        return sum(a * b for a, b in zip(w, values, strict=True)) / sum(w)

    means = [average(losses[: n + 1]) for n in range(len(losses))]
    for n in range(patience, len(losses) + 1):
        falls = [means[k] - means[k + 1] for k in range(n - 1)]
        if average(falls) < ratio * (means[0] - means[n - 1]) / (n - 1):
            return n
    return None


CURVES = {
    "knee": [10 * 0.8**t + 1 for t in range(60)],
    "straight": [10 - 0.1 * t for t in range(60)],
    "rising": [1 + 0.1 * t for t in range(60)],
    "noisy": [5 * 0.9**t + 0.3 * ((-1) ** t) for t in range(60)],
}


@pytest.mark.parametrize("curve", list(CURVES))
@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_it_switches_where_the_rule_says(curve: str, smoothing: float) -> None:
    losses, model = CURVES[curve], net()
    opt = MKORH(model, base=sgd(model), inverse_every=2, patience=15, ratio=0.3, smoothing=smoothing)
    train(model, opt, range(60), losses)
    assert opt.switched_at == expected_switch(losses, 15, 0.3, smoothing)
    if curve == "straight":
        assert opt.switched_at is None
    elif curve == "knee":
        assert opt.switched_at is not None
        assert 15 <= opt.switched_at < 40


def test_before_the_switch_it_is_mkor_and_after_it_the_base() -> None:
    losses = CURVES["knee"]
    when = expected_switch(losses, 15, 0.3, 0.9)
    assert when is not None
    model, twin = net(), net()
    opt = MKORH(model, base=sgd(model), inverse_every=2, patience=15, ratio=0.3)
    plain = MKOR(twin, base=sgd(twin), inverse_every=2)
    train(model, opt, range(when), losses)
    train(twin, plain, range(when))
    assert torch.equal(weights(model), weights(twin))
    assert opt.switched_at == when
    assert opt.layer_state == {}, "the factors are given up"
    train(model, opt, range(when, 60), losses)
    train(twin, plain.base, range(when, 60))
    assert torch.equal(weights(model), weights(twin))
    assert opt.notes()[0] == (
        f"MKOR-H's switch is curvebench's own rule (the paper prints none): it switched to SGD alone after step {when}"
    )


@pytest.mark.parametrize("start", [5, 20, 40])
def test_state_continues_with_the_same_bits_on_both_sides_of_the_switch(start: int) -> None:
    def fresh() -> tuple[nn.Module, MKORH]:
        model = net()
        return model, MKORH(model, base=sgd(model), inverse_every=3, patience=15, ratio=0.3)

    losses = CURVES["knee"]
    model, opt = fresh()
    train(model, opt, range(start), losses)
    other, resumed = fresh()
    train(other, resumed, range(2), losses)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    for m, o in ((model, opt), (other, resumed)):
        train(m, o, range(start, 60), losses)
    assert torch.equal(weights(model), weights(other))
    assert opt.switched_at == resumed.switched_at is not None


def test_a_closure_reports_and_a_missing_loss_raises() -> None:
    model = net()
    opt = MKORH(model, base=sgd(model), patience=2)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = model(data(8, 4)).square().mean()
        loss.backward()
        return loss

    opt.step(closure)
    closure()
    with pytest.raises(CurvebenchError, match=r"MKORH: the loss of this step is not known: call opt.report\(loss\)"):
        opt.step()


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    model = net()
    opt = MKORH(model, base=sgd(model), patience=15, ratio=0.3)
    train(model, opt, range(60), [float("nan") if t % 7 == 3 else x for t, x in enumerate(CURVES["straight"])])
    assert opt.switched_at is None


@pytest.mark.parametrize(("options", "message"), [
    ({"patience": 1}, r"MKORH: patience = 1: must lie in \[2, inf\)"),
    ({"ratio": 1.0}, r"ratio = 1.0: must lie in \[0, 1\)"),
    ({"smoothing": -0.1}, r"smoothing = -0.1: must lie in \[0, 1\)"),
    ({"rule": "hkor"}, "rule = 'hkor'"),
])  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        MKORH(nn.Linear(4, 3), lr=0.1, **options)


# -- in the harness ----------------------------------------------------------------------------------------------------


def test_conformance() -> None:
    assert [f for f in conformance(resolve("mkor-h"), "mkor-h", "torch") if not f.holds] == []


def test_the_ledger_shows_the_switch_and_the_record_says_when() -> None:
    lab = _Lab(resolve("mkor-h"), "mkor-h", "torch", "cpu", "float64")
    given = {"patience": 10, "ratio": 0.9, "inverse_every": 1, "lr": 0.5}
    engine = lab.engine(toy.classifier(), given)
    seen = []
    for step in range(50):
        engine.step(step, float("inf"))
        seen.append(ledger.as_dict(engine.counts()))
    when = engine.method.optimizer.switched_at
    assert when is not None
    assert 10 <= when < 50
    last = seen[-1]
    assert last["gradient"] == 50
    assert last["layer_statistics"] == when
    assert last["loss"] == 0, "the loss comes with the gradient"
    assert engine.notes()[0].endswith(f"after step {when}")
