"""What the adapters add to the libraries: where Schedule-Free is evaluated, Muon's split, dtypes, sizes, refusals."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import engine, parameters, run_spec
from torch import nn

from curvebench.errors import HyperparameterError, MissingPackageError
from curvebench.methods import resolve
from curvebench.methods.lamb_torch import LAMB
from curvebench.methods.muon_torch import Muon, hidden_matrices
from curvebench.methods.nadam_torch import NAdam
from curvebench.methods.prodigy_torch import Prodigy

STEPS = 6


def run(method: str, problem: Any, looks: int = 0, framework: str = "torch", **given: Any) -> Any:
    """An engine after some steps, evaluated so many times after each."""
    running = engine(run_spec(method, framework=framework, **given), problem)
    for step in range(STEPS):
        running.step(step, math.inf)
        for _ in range(looks):
            running.evaluate()
    return running


# -- Schedule-Free -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", tiny.FRAMEWORKS)
def test_schedule_free_is_evaluated_at_the_average_of_its_iterates(framework: str) -> None:
    """``x_t`` is the mean of ``z_1..z_t``; ``z`` comes back from the path of y: ``y = (1-b1) z + b1 x``."""
    problem, b1 = tiny.squared(), 0.7
    running = engine(run_spec("schedule-free", framework=framework, lr=0.1, beta1=b1), problem)
    names, x = list(problem.parameters), None
    for t in range(1, STEPS + 1):
        running.step(t - 1, math.inf)
        y = parameters(running)
        before = problem.parameters if x is None else x
        # x_t = (1 - 1/t) x_{t-1} + z_t / t
        z = {n: (y[n] - b1 * (1 - 1 / t) * before[n]) / (1 - b1 + b1 / t) for n in names}
        x = {n: (1 - 1 / t) * before[n] + z[n] / t for n in names}
        wanted = problem.train.inputs @ x["0.weight"][0] - problem.train.targets
        assert running.evaluate().loss == pytest.approx(np.mean(wanted**2) / 2, rel=1e-10)
    assert tiny.relative(x, y) > 1e-3, "elsewhere than the gradients"


@pytest.mark.parametrize("framework", tiny.FRAMEWORKS)
def test_looking_does_not_change_a_run(framework: str) -> None:
    """eval() and train() of the library give the iterate back to rounding only; the adapter keeps its bits."""
    never, often = (run("schedule-free", tiny.mlp(batch=4), looks, framework, beta1=0.7) for looks in (0, 2))
    left, right = parameters(never), parameters(often)
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_an_evaluation_that_raises_leaves_the_training_point() -> None:
    running = run("schedule-free", tiny.mlp())
    before = parameters(running)

    def broken() -> None:
        raise ValueError("no")

    running.task.evaluate = broken
    with pytest.raises(ValueError, match="no"):
        running.evaluate()
    assert all(np.array_equal(before[name], value) for name, value in parameters(running).items())
    assert running.method.optimizer.param_groups[0]["train_mode"]


# -- Muon --------------------------------------------------------------------------------------------------------------


def test_muon_takes_hidden_matrices_only() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.Conv1d(1, 2, 3), nn.LayerNorm(6), nn.Linear(6, 6),
                           nn.Linear(6, 3))  # fmt: skip
    assert list(hidden_matrices(module)) == ["1.weight", "4.weight"]
    module[4].weight.requires_grad_(False)
    assert list(hidden_matrices(module)) == ["1.weight"]
    assert Muon(module).names == ["1.weight"]
    assert len(Muon(nn.Linear(3, 3)).param_groups) == 1, "the only matrix makes the outputs"


def test_muon_of_jax_takes_the_same_parameters() -> None:
    from curvebench.methods import muon_jax

    for problem in (tiny.mlp(), tiny.conv(), tiny.squared()):
        assert muon_jax.hidden_matrices(problem.parameters) == list(hidden_matrices(problem.torch_module()))


def test_muons_parts_are_one_optimiser() -> None:
    """A schedule of the rates and a checkpoint see both; the restored one continues with the same bits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.randn(8, 3)

    def closure_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], torch.Tensor]:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = module(x).square().mean()
            loss.backward()
            return loss

        return closure

    optimizer = Muon(net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(3):
        optimizer.step(closure_of(net, optimizer))
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [2e-2 / 8, 1e-3 / 8]
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    weights, state = torch.load(file)
    other.load_state_dict(weights)
    second = Muon(other, lr=1.0)
    second.load_state_dict(state)
    for module, made in ((net, optimizer), (other, second)):
        for _ in range(2):
            made.step(closure_of(module, made))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


# -- dtypes that the libraries forget ----------------------------------------------------------------------------------


def test_nadams_product_of_momenta_is_of_the_parameters_dtype() -> None:
    """In torch's own class it is float32: ten steps in float64 agree with the rule to 1e-8 only."""
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = NAdam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.state[p]["mu_product"].dtype == torch.float64
    half = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    assert NAdam([half]).state[half]["mu_product"].dtype == torch.float32


def test_prodigy_leaves_the_default_dtype_alone() -> None:
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = Prodigy([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.get_default_dtype() == torch.float32
    assert optimizer.param_groups[0]["d_numerator"].dtype == torch.float64


# -- sizes that no formula in d gives ----------------------------------------------------------------------------------

SHAPES = [(4, 3), (4,), (3, 4), (3,)]  # tiny.mlp
D = 31


def sides(power: int) -> int:
    return sum(n**power for shape in SHAPES if len(shape) > 1 for n in shape)


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("adafactor", sides(1) + 4 + 3),
        ("soap", 2 * D + 2 * sides(2)),
        ("shampoo", 2 * D + 2 * sides(2)),
        ("muon", 12 + 2 * (D - 12)),
    ],
)
def test_bytes_of_state_are_those_that_the_pages_say(method: str, numbers: int) -> None:
    assert sum(run(method, tiny.mlp()).state_bytes().values()) == 8 * numbers


def test_shampoo_cuts_long_sides_into_blocks() -> None:
    assert sum(run("shampoo", tiny.mlp(), block=2).state_bytes().values()) == 8 * (
        2 * D + 2 * (2 * (2 * 4 + 4 + 1) * 2)
    )


def test_lamb_without_a_norm_takes_adams_step() -> None:
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    still = torch.ones(2, dtype=torch.float64, requires_grad=True)
    zero.grad, still.grad = torch.ones_like(zero), torch.zeros_like(still)
    LAMB([zero, still], lr=0.1, eps=1e-12).step()
    np.testing.assert_allclose(zero.detach().numpy(), -0.1, rtol=1e-9)  # |theta| = 0: the ratio is 1
    assert torch.equal(still.detach(), torch.ones(2, dtype=torch.float64))


# -- refusals ----------------------------------------------------------------------------------------------------------

CARDS = ("adagrad", "rmsprop", "nadam", "adafactor", "lamb", "lion", "muon", "soap", "shampoo", "sophia-h",
         "schedule-free", "prodigy")  # fmt: skip


@pytest.mark.parametrize("method", CARDS)
def test_a_cards_value_out_of_range_is_refused_with_name_value_and_range(method: str) -> None:
    with pytest.raises(HyperparameterError, match=rf"{method}: lr = -1: must lie in \(0, inf\)"):
        resolve(method).resolve({"lr": -1})


CLASSES: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (LAMB, {"lr": -0.5}, r"LAMB: lr = -0.5: must lie in \[0, inf\)"),
    (LAMB, {"betas": (1.0, 0.9)}, r"LAMB: beta1 = 1.0: must lie in \[0, 1\)"),
    (LAMB, {"eps": 0.0}, r"LAMB: eps = 0.0: must lie in \(0, inf\)"),
    (LAMB, {"weight_decay": -1.0}, r"LAMB: weight_decay = -1.0: must lie in \[0, inf\)"),
    (NAdam, {"lr": -1.0}, r"NAdam: lr = -1.0: must lie in \[0, inf\)"),
    (NAdam, {"betas": (0.9, 1.0)}, r"NAdam: beta2 = 1.0: must lie in \[0, 1\)"),
    (Prodigy, {"d0": 0.0}, r"Prodigy: d0 = 0.0: must lie in \(0, inf\)"),
    (Prodigy, {"lr": -1.0}, r"Prodigy: lr = -1.0: must lie in \[0, inf\)"),
]


@pytest.mark.parametrize(("constructor", "options", "message"), CLASSES)
def test_a_classes_value_out_of_range_is_refused(constructor: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        constructor([torch.ones(3, requires_grad=True)], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.5}, r"Muon: lr = -0.5: must lie in \[0, inf\)"),
        ({"momentum": 1.0}, r"Muon: momentum = 1.0: must lie in \[0, 1\)"),
        ({"ns_steps": 100}, r"Muon: ns_steps = 100: must lie in \[1, 99\]"),
        ({"adamw_lr": -1.0}, r"Muon: adamw_lr = -1.0: must lie in \[0, inf\)"),
    ],
)
def test_muon_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Muon(nn.Linear(3, 3), **options)
    if "ns_steps" in options:
        from curvebench.methods.muon_jax import muon

        with pytest.raises(HyperparameterError, match=r"muon: ns_steps = 100: must lie in \[1, 99\]"):
            muon(0.1, ns_steps=100)


@pytest.mark.parametrize("constructor", [LAMB, NAdam, Prodigy])
def test_parameters_that_are_not_floating_are_refused(constructor: Any) -> None:
    with pytest.raises(TypeError, match=r"a parameter has dtype torch.int64: must be floating"):
        constructor([torch.arange(3)])


def test_muon_refuses_parameters_that_are_not_floating() -> None:
    module = nn.Module()
    module.table = nn.Parameter(torch.arange(3), requires_grad=False)
    with pytest.raises(TypeError, match=r"Muon: a parameter has dtype torch.int64: must be floating"):
        Muon(module)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from curvebench.methods.resolve import load_target

    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    load_target.cache_clear()
    with pytest.raises(MissingPackageError, match=r"'pytorch_optimizer': pip install 'curvebench\[baselines\]'"):
        load_target("pytorch_optimizer:Lion")
    monkeypatch.setattr("curvebench.methods.cma_es_torch.find_spec", lambda name: None)
    constructor = load_target("curvebench.methods.cma_es_torch:CMAES")
    with pytest.raises(MissingPackageError, match=r"CMAES needs the package 'cma': pip install"):
        constructor([torch.zeros(3)])
    load_target.cache_clear()
