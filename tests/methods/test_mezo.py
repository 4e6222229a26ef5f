"""MeZO alone: replayed noise restores the weights, what it refuses, what it keeps."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.replay_torch import CHUNK
from curvebench.methods.mezo_jax import mezo
from curvebench.methods.mezo_torch import MeZO

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(1))


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def values(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def make(module: nn.Module, seed: int = 5, **options: Any) -> MeZO:
    return MeZO(module.parameters(), generator=torch.Generator().manual_seed(seed), **options)


def loss_of(module: nn.Module) -> torch.Tensor:
    return F.cross_entropy(module(X.to(next(module.parameters()))), Y.to(next(module.parameters()).device))


def test_a_step_is_the_central_difference_along_one_gaussian_direction() -> None:
    module, twin = net(torch.float64), net(torch.float64)
    eps, lr, decay = 1e-3, 0.1, 0.05
    optimizer = make(module, lr=lr, eps=eps, weight_decay=decay)
    losses: list[float] = []

    def closure() -> torch.Tensor:
        assert not torch.is_grad_enabled()
        loss = loss_of(module)
        losses.append(loss.item())
        return loss

    returned = optimizer.step(closure)
    assert len(losses) == 2
    assert returned.item() == losses[0]
    # the direction, recovered from an optimiser of its own
    start = values(twin)
    recorder = make(twin, eps=1.0, lr=1e-30)
    seen: list[torch.Tensor] = []
    recorder.step(lambda: (seen.append(values(twin)), torch.zeros(()))[1])
    z = seen[0] - start
    torch.testing.assert_close(seen[1], start - z, rtol=1e-12, atol=1e-13)

    def at(step: float) -> float:
        nn.utils.vector_to_parameters(start + step * z, twin.parameters())
        return loss_of(twin).item()

    slope = (at(eps) - at(-eps)) / (2 * eps)
    torch.testing.assert_close(values(module), start - lr * (slope * z + decay * start), rtol=1e-10, atol=1e-12)


def test_the_estimate_is_unbiased_for_the_gradient() -> None:
    """E[(z.g) z] = g: over 4,000 directions each entry is within 5 standard errors (at most 2 |g| / sqrt(n))."""
    g = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    p = torch.zeros(3, dtype=torch.float64)
    optimizer = MeZO([p], lr=1.0, eps=1e-3, restore="copy", generator=torch.Generator().manual_seed(0))
    total = torch.zeros_like(p)
    for _ in range(4000):
        p.zero_()
        optimizer.step(lambda: g @ p)
        total -= p
    assert (total / 4000 - g).abs().max() < 5 * (2 * g @ g).sqrt() / 4000**0.5


def test_replay_drifts_by_rounding_only() -> None:
    """A thousand float32 steps of no length move the weights by at most 5e-6 of their norm."""
    module = net()
    start = values(module)
    optimizer = make(module, lr=0.0, eps=1e-3)
    for _ in range(1000):
        optimizer.step(lambda: loss_of(module))
    drift = (values(module) - start).norm() / start.norm()
    assert 0 < drift <= 5e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_copy_restores_bit_exactly_in_every_precision(dtype: torch.dtype) -> None:
    module = net(dtype)
    start = values(module)
    optimizer = make(module, lr=0.0, restore="copy")
    for _ in range(20):
        optimizer.step(lambda: loss_of(module))
    assert torch.equal(values(module), start)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_replay_is_refused_in_half_precision(dtype: torch.dtype) -> None:
    with pytest.raises(HyperparameterError) as caught:
        make(net(dtype))
    assert str(caught.value) == (
        f"MeZO: restore = 'replay' with {dtype} parameters: adding and subtracting noise does not restore "
        "half-precision weights; use restore='copy'"
    )


def test_replay_and_copy_are_the_same_step() -> None:
    ends = []
    for restore in ("replay", "copy"):
        module = net(torch.float64)
        optimizer = make(module, lr=0.1, weight_decay=0.1, restore=restore)
        for _ in range(10):
            optimizer.step(lambda module=module: loss_of(module))
        ends.append(values(module))
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(2 * CHUNK + 40,), (CHUNK + 16,), (300, 300)])
def test_large_and_strided_parameters_are_restored(shape: tuple[int, ...]) -> None:
    base = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for p in (base.clone(), base.clone().t().contiguous().t()):
        start = p.clone()
        optimizer = MeZO([p], lr=1e-30, generator=torch.Generator().manual_seed(0))
        points: list[torch.Tensor] = []
        optimizer.step(lambda p=p, points=points: (points.append(p.clone()), torch.zeros(()))[1])
        torch.testing.assert_close(points[0] + points[1], 2 * start, rtol=1e-12, atol=1e-12)
        noise = (points[0] - start) / 1e-3
        assert abs(noise.mean()) < 5 / start.numel() ** 0.5
        assert abs(noise.var() - 1) < 5 * (2 / start.numel()) ** 0.5
        torch.testing.assert_close(p, start, rtol=1e-12, atol=1e-12)


def test_groups_have_their_own_step_size_and_decay() -> None:
    p, q = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    optimizer = MeZO([{"params": [p], "lr": 0.5, "weight_decay": 0.1}, {"params": [q], "lr": 0.25}])
    optimizer.step(lambda: torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(p, torch.full_like(p, 0.95), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(q, torch.ones_like(q), rtol=1e-12, atol=1e-12)


def test_no_closure_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        CurvebenchError, match=r"a zeroth-order method needs a closure that returns the loss: step\(closure\)"
    ):
        make(net()).step()


def test_a_saved_run_continues_bit_identically(tmp_path: Any) -> None:
    whole, half = net(), net()
    first, second = make(whole, lr=0.01), make(half, lr=0.01)
    for _ in range(3):
        first.step(lambda: loss_of(whole))
        second.step(lambda: loss_of(half))
    torch.save(second.state_dict(), tmp_path / "saved.pt")
    third = make(half, seed=77, lr=0.5)
    third.load_state_dict(torch.load(tmp_path / "saved.pt", weights_only=True))
    for _ in range(3):
        first.step(lambda: loss_of(whole))
        third.step(lambda: loss_of(half))
    assert torch.equal(values(whole), values(half))


def test_without_a_generator_torchs_seed_decides_and_its_state_is_left_alone() -> None:
    ends = []
    for seed in (3, 3, 4):
        module = net()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        optimizer = MeZO(module.parameters(), lr=0.1)
        optimizer.step(lambda module=module: loss_of(module))
        assert torch.equal(before, torch.get_rng_state())
        ends.append(values(module))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("lr", -1.0, r"MeZO: lr = -1.0: must lie in \[0, inf\)"),
        ("eps", -1e-3, r"MeZO: eps = -0.001: must lie in \(0, inf\)"),
        ("weight_decay", -1.0, r"MeZO: weight_decay = -1.0: must lie in \[0, inf\)"),
        ("restore", "undo", "MeZO: restore = 'undo': must be one of 'replay', 'copy'"),
    ],
)
def test_bad_options_are_refused(option: str, value: Any, sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        MeZO(net().parameters(), **{option: value})
    if option in ("lr", "weight_decay"):
        optimizer = make(net())
        with pytest.raises(HyperparameterError, match=sentence):
            optimizer.add_param_group({"params": [torch.zeros(2)], option: value})
        assert len(optimizer.param_groups) == 1


def test_bad_options_are_refused_in_jax() -> None:
    for option in ({"learning_rate": -1.0}, {"eps": 0.0}, {"weight_decay": -1.0}):
        with pytest.raises(HyperparameterError, match=rf"mezo: {next(iter(option))} = "):
            mezo(**{"learning_rate": 0.1, **option})


def test_parameters_that_are_no_floats_are_refused() -> None:
    with pytest.raises(TypeError, match=r"MeZO: a parameter has dtype torch.int64: must be floating"):
        MeZO([torch.zeros(2, dtype=torch.int64)])


def test_on_every_device_it_steps_and_restores(device: str) -> None:
    module = net().to(device)
    start = values(module)
    optimizer = MeZO(module.parameters(), lr=1e-30)
    optimizer.step(lambda: loss_of(module))
    torch.testing.assert_close(values(module), start, rtol=1e-5, atol=1e-6)


def test_the_constructors_words_are_fixed() -> None:
    """What scripts rely on: the first argument by position, all others by name."""
    parameters = list(inspect.signature(MeZO).parameters.values())
    assert [p.name for p in parameters] == ["params", "lr", "eps", "weight_decay", "restore", "generator"]
    assert [p.kind for p in parameters[1:]] == [inspect.Parameter.KEYWORD_ONLY] * 5
    assert {p.name: p.default for p in parameters[1:]} == {
        "lr": 1e-6, "eps": 1e-3, "weight_decay": 0.0, "restore": "replay", "generator": None,
    }  # fmt: skip


def test_a_closure_that_fails_leaves_the_weights_where_they_were() -> None:
    module = net(torch.float64)
    start = values(module)
    calls = iter(range(10))

    def closure() -> torch.Tensor:
        if next(calls) == 1:
            raise ZeroDivisionError
        return loss_of(module)

    for restore in ("replay", "copy"):
        with pytest.raises(ZeroDivisionError):
            make(module, restore=restore).step(closure)
        calls = iter(range(10))
        torch.testing.assert_close(values(module), start, rtol=1e-12, atol=1e-12)
