"""AdaHessian alone, in somebody's own training loop: what it needs, what it refuses, what it keeps."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError, MissingGraphError
from curvebench.methods import adahessian_jax
from curvebench.methods.adahessian_torch import AdaHessian, average

# torch's advice to whoever calls backward(create_graph=True); the class's docstring says what to do about it
pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")

ADVICE = r"call loss.backward\(create_graph=True\) before step\(\), or pass step\(\) a closure that returns the loss"
X = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(1))


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def loss_of(module: nn.Module) -> torch.Tensor:
    return F.cross_entropy(module(X), Y)


def values(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def by_backward(module: nn.Module, optimizer: AdaHessian) -> None:
    optimizer.zero_grad()
    loss_of(module).backward(create_graph=True)
    optimizer.step()


def by_closure(module: nn.Module, optimizer: AdaHessian) -> None:
    optimizer.zero_grad()
    optimizer.step(lambda: loss_of(module))


def by_closure_with_graph(module: nn.Module, optimizer: AdaHessian) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(module)
        loss.backward(create_graph=True)
        return loss

    optimizer.step(closure)


WAYS = [by_backward, by_closure, by_closure_with_graph]
Way = Callable[[nn.Module, AdaHessian], None]


def make(module: nn.Module, seed: int = 5, **options: Any) -> AdaHessian:
    return AdaHessian(module.parameters(), generator=torch.Generator().manual_seed(seed), **{"lr": 0.1, **options})


@pytest.mark.parametrize("hessian_every", [1, 3])
def test_all_ways_of_calling_it_are_one_trajectory(hessian_every: int) -> None:
    ends = []
    for way in WAYS:
        module = net()
        optimizer = make(module, hessian_every=hessian_every)
        start = loss_of(module).item()
        for _ in range(7):
            way(module, optimizer)
        ends.append(values(module))
        assert loss_of(module).item() < start
    assert torch.equal(ends[0], ends[2])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-14)


def test_step_returns_the_closures_loss_and_nothing_without_one() -> None:
    module = net()
    optimizer = make(module)
    expected = loss_of(module).item()
    found = optimizer.step(lambda: loss_of(module))
    assert found.item() == expected
    assert not found.requires_grad
    loss_of(module).backward(create_graph=True)
    assert optimizer.step() is None


@pytest.mark.parametrize("way", ["plain backward", "closure with plain backward", "no gradient's graph left"])
def test_a_missing_graph_raises_with_the_remedy(way: str) -> None:
    module = net()
    optimizer = make(module)
    before = values(module)

    def closure() -> torch.Tensor:
        loss = loss_of(module)
        loss.backward()
        return loss

    if way == "plain backward":
        closure()
    given = {
        "plain backward": None,
        "closure with plain backward": closure,
        "no gradient's graph left": lambda: closure().detach(),
    }[way]
    with pytest.raises(MissingGraphError, match=ADVICE):
        optimizer.step(given)
    assert torch.equal(before, values(module))
    by_closure(module, optimizer)  # and the optimiser is none the worse
    assert optimizer.state[next(module.parameters())]["step"] == 1


def test_no_gradient_at_all_raises_with_the_remedy() -> None:
    optimizer = make(net(), hessian_every=2)
    optimizer._steps = 1
    with pytest.raises(CurvebenchError, match=r"no parameter has a gradient: call loss.backward\(\) before step"):
        optimizer.step()


def test_between_hessians_a_plain_backward_is_enough_and_v_stands_still() -> None:
    module = net()
    optimizer = make(module, hessian_every=3, betas=(0.9, 0.99))
    first = next(module.parameters())
    seen, hessians = [], []
    for step in range(7):
        optimizer.zero_grad()
        loss_of(module).backward(create_graph=step % 3 == 0)
        optimizer.step()
        seen.append(optimizer.state[first]["v"].clone())
        hessians.append(optimizer.state[first]["hessians"])
    assert hessians == [1, 1, 1, 2, 2, 2, 3]
    assert [torch.equal(a, b) for a, b in itertools.pairwise(seen)] == [
        True,
        True,
        False,
        True,
        True,
        False,
    ]


def test_the_bias_correction_of_v_counts_hessians_not_steps() -> None:
    """With a constant diagonal D, sqrt(v / (1 - b2^h)) is D at every step: plain preconditioned momentum."""
    d = torch.tensor([4.0, 0.5, 9.0], dtype=torch.float64)
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = AdaHessian([p], lr=0.1, betas=(0.0, 0.9), eps=1e-12, hessian_every=4)
    q = p.detach().clone()
    for _ in range(9):
        optimizer.step(lambda: 0.5 * (d * p * p).sum())
        q = q - 0.1 * (d * q) / d
        torch.testing.assert_close(p.detach(), q, rtol=1e-9, atol=0)
        p.grad = None


def test_the_probes_hit_the_exact_diagonal_of_a_diagonal_hessian_and_its_expectation_otherwise() -> None:
    """z * Hz is unbiased for diag H: the mean over 4,000 probes is within 5 standard errors."""
    a = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdaHessian([p], lr=1e-12, betas=(0.0, 0.0), generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(400):
        optimizer.step(lambda: 0.5 * p @ a @ p)
        seen.append(optimizer.state[p]["v"].sqrt().clone())
        p.grad = None
    found = set(torch.stack(seen)[:, 0].round(decimals=9).tolist())
    assert found == {2.3, 1.7}, "|2 z1 + 0.3 z2| takes two values"
    mean = torch.stack(seen)[:, 0].mean().item()
    assert abs(mean - 2.0) < 5 * 0.3 / 20


def test_parameter_groups_have_options_of_their_own() -> None:
    """lr, decay, betas, power and averaging of each group are those of an optimiser of that group alone."""
    module = net()
    weights = [p for p in module.parameters() if p.dim() > 1]
    biases = [p for p in module.parameters() if p.dim() == 1]
    options = [
        {"lr": 0.1, "weight_decay": 0.1, "averaging": "row"},
        {"lr": 0.02, "betas": (0.5, 0.9), "hessian_power": 0.5, "averaging": "none", "eps": 1e-2},
    ]
    grouped = AdaHessian(
        [{"params": weights, **options[0]}, {"params": biases, **options[1]}],
        generator=torch.Generator().manual_seed(5),
    )
    twin = copy.deepcopy(module)
    for _ in range(3):
        by_closure(module, grouped)
    # The same probes for everything, in the order of the groups, and then each group's own rule by hand.
    generator = torch.Generator().manual_seed(5)
    params = [p for p in twin.parameters() if p.dim() > 1] + [p for p in twin.parameters() if p.dim() == 1]
    m = [torch.zeros_like(p) for p in params]
    v = [torch.zeros_like(p) for p in params]
    for t in range(1, 4):
        recorder = AdaHessian(params, lr=1e-30, betas=(0.0, 0.0), averaging="none", generator=generator)
        gradients = torch.autograd.grad(loss_of(twin), params)
        recorder.step(lambda: loss_of(twin))
        for i, (p, g) in enumerate(zip(params, gradients, strict=True)):
            o = {
                "betas": (0.9, 0.999),
                "hessian_power": 1.0,
                "eps": 1e-4,
                "weight_decay": 0.0,
                **options[i >= len(weights)],
            }
            b1, b2 = o["betas"]
            d = recorder.state[p]["v"].sqrt()
            d = d.mean(1, keepdim=True).expand_as(d) if o["averaging"] == "row" else d
            m[i], v[i] = b1 * m[i] + (1 - b1) * g, b2 * v[i] + (1 - b2) * d * d
            scale = (v[i] / (1 - b2**t)) ** (o["hessian_power"] / 2) + o["eps"]
            with torch.no_grad():
                p.copy_(p - o["lr"] * (m[i] / (1 - b1**t) / scale + o["weight_decay"] * p))
            p.grad = None
    torch.testing.assert_close(values(module), values(twin), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_saved_run_continues_bit_identically(at: int, tmp_path: Any) -> None:
    """The probes' generator and the place between two Hessians are part of the state; so is a round trip over disk."""
    whole, half = net(), net()
    first, second = make(whole, hessian_every=2), make(half, hessian_every=2)
    for _ in range(at):
        by_closure(whole, first)
        by_closure(half, second)
    torch.save({"optimizer": second.state_dict(), "module": half.state_dict()}, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    resumed = net(seed=9)
    resumed.load_state_dict(saved["module"])
    third = make(resumed, seed=77, hessian_every=2)
    third.load_state_dict(saved["optimizer"])
    for _ in range(5):
        by_closure(whole, first)
        by_closure(resumed, third)
    assert torch.equal(values(whole), values(resumed))


def test_without_a_generator_torchs_seed_decides_and_its_state_is_left_alone() -> None:
    ends = []
    for seed in (3, 3, 4):
        module = net()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        optimizer = AdaHessian(module.parameters(), lr=0.1)
        by_closure(module, optimizer)
        by_closure(module, optimizer)
        assert torch.equal(before, torch.get_rng_state())
        ends.append(values(module))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_parameters_without_a_gradient_are_left_out() -> None:
    module = net()
    unused = torch.ones(3, dtype=torch.float64, requires_grad=True)
    frozen = torch.ones(2, dtype=torch.float64)
    alone, together = net(), module
    one = make(alone)
    both = AdaHessian([*together.parameters(), unused, frozen], lr=0.1, generator=torch.Generator().manual_seed(5))
    for _ in range(3):
        by_closure(alone, one)
        by_closure(together, both)
    assert torch.equal(values(alone), values(together))
    assert torch.equal(unused, torch.ones(3, dtype=torch.float64))
    assert unused not in both.state


def test_hessian_every_holds_when_the_first_parameter_has_no_gradient() -> None:
    module = net()
    unused = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = AdaHessian([unused, *module.parameters()], lr=0.1, hessian_every=3)
    for _ in range(7):
        by_closure(module, optimizer)
    state = optimizer.state[next(module.parameters())]
    assert (state["step"], state["hessians"]) == (7, 3)


def test_a_parameter_that_joins_between_hessians_waits_for_the_next_and_is_not_thrown_away() -> None:
    p, q = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = AdaHessian([p, q], lr=0.1, hessian_every=2)
    steps = []
    for step in range(4):
        optimizer.zero_grad()
        optimizer.step(lambda step=step: (p * p).sum() + ((q * q * q).sum() if step else 0.0))
        steps.append(q.detach().clone())
    assert torch.equal(steps[0], torch.ones(2, dtype=torch.float64)), "no gradient"
    assert torch.equal(steps[1], steps[0]), "a gradient, no curvature"
    assert 0 < (steps[1] - steps[2]).abs().max() < 0.2, "a step of about lr g / D"
    assert torch.isfinite(steps[3]).all()
    assert (optimizer.state[p]["step"], optimizer.state[q]["step"]) == (4, 3)
    assert (optimizer.state[p]["hessians"], optimizer.state[q]["hessians"]) == (2, 1)


def test_stale_gradients_do_not_stand_for_a_closures() -> None:
    """A closure that only returns the loss is differentiated here, whatever an earlier backward left behind."""
    ends = []
    for stale in (False, True):
        module = net()
        optimizer = make(module, hessian_every=2)
        for _ in range(3):
            optimizer.zero_grad()
            if stale:
                (loss_of(module) * 17).backward()
            optimizer.step(lambda module=module: loss_of(module))
        ends.append(values(module))
    assert torch.equal(ends[0], ends[1])


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = AdaHessian(table.parameters(), hessian_every=2)
    optimizer._steps = 1
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(CurvebenchError, match="a gradient is sparse: curvature methods need dense gradients"):
        optimizer.step()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("lr", -1.0, r"AdaHessian: lr = -1.0: must lie in \[0, inf\)"),
        ("lr", float("nan"), r"AdaHessian: lr = nan: must lie in \[0, inf\)"),
        ("betas", (1.0, 0.9), r"AdaHessian: beta1 = 1.0: must lie in \[0, 1\)"),
        ("betas", (0.9, -0.1), r"AdaHessian: beta2 = -0.1: must lie in \[0, 1\)"),
        ("eps", 0.0, r"AdaHessian: eps = 0.0: must lie in \(0, inf\)"),
        ("weight_decay", -1.0, r"AdaHessian: weight_decay = -1.0: must lie in \[0, inf\)"),
        ("hessian_power", 1.5, r"AdaHessian: hessian_power = 1.5: must lie in \(0, 1\]"),
        ("hessian_every", 0, r"AdaHessian: hessian_every = 0: must lie in \[1, inf\)"),
        ("betas", (0.9,), r"AdaHessian: betas = \(0.9,\): must be two numbers"),
        ("hessian_every", 1.5, r"AdaHessian: hessian_every = 1.5: must be a whole number"),
        (
            "averaging",
            "column",
            "AdaHessian: averaging = 'column': must be one of 'conv', 'row', 'none', or four block",
        ),
        (
            "averaging",
            (1, 5, 1, 1),
            r"AdaHessian: averaging = \(1, 5, 1, 1\): blocks of 5 do not divide the 12 elements",
        ),
        (
            "averaging",
            (1, 0, 1, 1),
            r"AdaHessian: averaging = \(1, 0, 1, 1\): must be one of .* each -1 or in \[1, inf\)",
        ),
        ("averaging", (1, 2, 1), r"AdaHessian: averaging = \(1, 2, 1\): must be one of .* or four block sizes"),
        ("averaging", 4, r"AdaHessian: averaging = 4: must be one of"),
    ],
)
def test_bad_options_are_refused_at_construction_in_every_group(option: str, value: Any, sentence: str) -> None:
    module = net()
    with pytest.raises(HyperparameterError, match=sentence):
        AdaHessian(module.parameters(), **{option: value})
    optimizer = AdaHessian([torch.zeros(1, requires_grad=True)])
    if option == "hessian_every":
        sentence = r"hessian_every = .* in a group: all parameters share one Hessian"
    with pytest.raises(HyperparameterError, match=sentence):
        optimizer.add_param_group({"params": list(module.parameters()), option: value})
    assert len(optimizer.param_groups) == 1, "the bad group was not added"


def test_parameters_that_are_no_floats_are_refused() -> None:
    with pytest.raises(TypeError, match=r"AdaHessian: a parameter has dtype torch.complex64: must be floating"):
        AdaHessian([torch.zeros(2, dtype=torch.complex64, requires_grad=True)])
    half = (
        "a parameter has dtype torch.float16 .* must be float32, float64 or bfloat16 .* keep float32 parameters under"
    )
    with pytest.raises(TypeError, match=half):
        AdaHessian([torch.zeros(2, dtype=torch.float16, requires_grad=True)])
    with pytest.raises(TypeError, match=r"layout torch.sparse_coo: must be .*, and strided"):
        AdaHessian([torch.zeros(2, 2).to_sparse().requires_grad_()])


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("learning_rate", -1.0, r"adahessian: learning_rate = -1.0: must lie in \[0, inf\)"),
        ("b1", 1.0, r"adahessian: b1 = 1.0: must lie in \[0, 1\)"),
        ("b2", 2.0, "b2 = 2.0"),
        ("eps", 0.0, "eps = 0.0"),
        ("weight_decay", -1.0, "weight_decay = -1.0"),
        ("hessian_power", 0.0, "hessian_power = 0.0"),
        ("hessian_every", 0, "hessian_every = 0"),
        ("averaging", "column", "averaging = 'column': must be one of"),
    ],
)
def test_bad_options_are_refused_in_jax_too(option: str, value: Any, sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        adahessian_jax.adahessian(**{"learning_rate": 0.1, option: value})


# -- averaging ---------------------------------------------------------------------------------------------------------

SHAPES = [(), (4,), (4, 6), (2, 3, 4), (2, 3, 3, 3), (2, 2, 2, 2, 2)]
EXPECTED = {  # rule -> dimensions -> axes of the mean
    "conv": {4: (2, 3)},
    "row": {2: (1,), 3: (2,), 4: (2, 3)},
    "none": {},
    (-1, -1, -1, -1): {2: (1,), 3: (2,), 4: (2, 3), 5: ()},
}


@pytest.mark.parametrize("rule", list(EXPECTED))
@pytest.mark.parametrize("shape", SHAPES)
def test_averages_are_means_over_the_named_axes(rule: Any, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape)
    axes = EXPECTED[rule].get(len(shape), ())
    expected = np.broadcast_to(values.mean(axes, keepdims=True), shape) if axes else values
    for found in (
        average(torch.tensor(values), rule).numpy(),
        np.asarray(adahessian_jax.average(jnp.array(values), rule)),
    ):
        assert found.shape == shape
        assert found == pytest.approx(expected, rel=1e-6)


def test_blocks_are_consecutive_elements_of_the_flattened_tensor() -> None:
    values = np.arange(24.0).reshape(4, 6)
    expected = values.reshape(-1, 8).mean(1).repeat(8).reshape(4, 6)
    assert np.array_equal(average(torch.tensor(values), (1, 8, 1, 1)).numpy(), expected)
    assert np.array_equal(np.asarray(adahessian_jax.average(jnp.array(values), (1, 8, 1, 1))), expected)


def test_blocks_that_do_not_divide_are_refused_in_both_frameworks() -> None:
    sentence = (
        r"(?i)adahessian: averaging = \(1, 5, 1, 1\): blocks of 5 do not divide the 24 elements of a parameter of "
        r"shape \(4, 6\): give such parameters a group of their own with another averaging"
    )
    with pytest.raises(HyperparameterError, match=sentence):
        average(torch.zeros(4, 6), (1, 5, 1, 1))
    with pytest.raises(HyperparameterError, match=sentence):
        adahessian_jax.average(jnp.zeros((4, 6)), (1, 5, 1, 1))


def test_on_every_device_it_steps(device: str) -> None:
    module = net().to(device)
    optimizer = AdaHessian(module.parameters(), lr=0.1, hessian_every=2)
    x, y = X.to(device), Y.to(device)
    before = F.cross_entropy(module(x), y).item()
    for _ in range(5):
        optimizer.zero_grad()
        optimizer.step(lambda: F.cross_entropy(module(x), y))
    assert F.cross_entropy(module(x), y).item() < before
    again = AdaHessian(module.parameters(), lr=0.1, hessian_every=2)
    again.load_state_dict(optimizer.state_dict())
    assert tiny.relative([again.state[p]["v"].cpu() for p in module.parameters()],
                         [optimizer.state[p]["v"].cpu() for p in module.parameters()]) == 0  # fmt: skip
    assert jax.devices()
