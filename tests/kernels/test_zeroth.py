"""Zeroth-order kernels against the float64 definitions, the authors' numbers and the laws that they obey."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from curvebench.errors import HyperparameterError
from curvebench.kernels import reference_zeroth as reference
from curvebench.kernels.descent_torch import adam_, momentum_
from curvebench.kernels.replay_torch import CHUNK, Probe, noise, part, refuse_half
from curvebench.kernels.zeroth_torch import LAWS, coordinate_gradient, project, random_gradient

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "zeroth" / "deepzero_estimators.npz")
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


def golden(prefix: str) -> list[Tensor]:
    return [torch.from_numpy(GOLDEN[f"{prefix}/{name}"]) for name in NAMES]


def mlp(p: list[Tensor]) -> Tensor:
    hidden = torch.tanh(torch.from_numpy(GOLDEN["x"]) @ p[0].T + p[1])
    return F.cross_entropy(hidden @ p[2].T + p[3], torch.from_numpy(GOLDEN["y"]))


def worst(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def norm(a: list[Tensor]) -> float:
    return math.sqrt(sum(float(x.square().sum()) for x in a))


def gaussian(seed: int) -> Callable[[tuple[int, ...]], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64)


# -- the authors' numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.005, 0.001, 1e-06])
def test_cge_is_deepzeros(mu: float) -> None:
    p = golden("param")
    seen = coordinate_gradient(lambda: mlp(p), p, mu=mu)
    assert float(seen.loss) == pytest.approx(float(GOLDEN["base_loss"]), abs=1e-14)
    assert worst(seen.gradient, golden(f"cge_mu{mu}")) < max(1e-10, 4e-16 / mu)


def test_cge_leaves_no_drift_where_deepzero_leaves_mu() -> None:
    p = golden("param")
    coordinate_gradient(lambda: mlp(p), p, mu=0.005)
    assert worst(p, golden("param")) == 0.0
    assert float(GOLDEN["cge_mu0.005_network_drift"]) == pytest.approx(0.005)


def test_cge_is_not_the_aliased_random_walk() -> None:
    p, bad, truth = golden("param"), golden("cge_aliased_mu0.005"), golden("autograd")
    good = coordinate_gradient(lambda: mlp(p), p, mu=0.005).gradient
    assert norm([a - b for a, b in zip(bad, truth, strict=True)]) > 1.8 * norm(truth)
    assert norm([a - b for a, b in zip(good, truth, strict=True)]) < 0.004 * norm(truth)


def test_masked_cge_is_deepzeros() -> None:
    names = ("0.weight_orig", "0.bias", "2.weight_orig", "2.bias")
    p = [torch.from_numpy(GOLDEN[f"masked/param/{name}"]) for name in names]
    masks = [torch.from_numpy(GOLDEN[f"masked/mask/{i}.weight_mask"]).bool() for i in (0, 2)]

    def pruned() -> Tensor:
        return mlp([p[0] * masks[0], p[1], p[2] * masks[1], p[3]])

    seen = coordinate_gradient(pruned, p, mu=0.005, masks=[masks[0], None, masks[1], None])
    assert float(seen.loss) == pytest.approx(float(GOLDEN["masked/base_loss"]), abs=1e-14)
    wanted = [torch.from_numpy(GOLDEN[f"masked/cge_mu0.005/{name}"]) for name in names]
    assert worst(seen.gradient, wanted) < 1e-10
    assert not seen.gradient[0][~masks[0]].any()
    assert (~masks[0]).sum() == 18


@pytest.mark.parametrize("law", ["gaussian", "tensor-sphere"])
def test_rge_is_deepzeros_up_to_its_scale(law: str) -> None:
    # As shipped: the mean of (f(theta + mu u) - f(theta)) u, u unit per tensor; mu / d_l times the unbiased one.
    p, mu = golden("param"), 0.005
    rows = iter([GOLDEN[f"rge_q16_dirs/{name}"][i] for i in range(16) for name in NAMES])
    losses: list[float] = []

    def loss() -> Tensor:
        value = mlp(p)
        losses.append(float(value))
        return value

    seen = random_gradient(loss, p, lambda shape: torch.from_numpy(next(rows)), mu=mu, queries=16, law=law)
    np.testing.assert_allclose(losses[1:], GOLDEN["rge_q16_losses"], atol=1e-12)
    scale = [mu if law == "gaussian" else mu / t.numel() for t in p]
    assert worst([g * s for g, s in zip(seen.gradient, scale, strict=True)], golden("rge_q16_mu0.005")) < 1e-10


# -- the definitions ---------------------------------------------------------------------------------------------------


def rosenbrock(x: np.ndarray) -> float:
    return float(np.sum(3 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def split(x: np.ndarray) -> list[Tensor]:
    return [torch.tensor(x[:6].reshape(2, 3)), torch.tensor(x[6:])]


def join(tensors: list[Tensor]) -> np.ndarray:
    return np.concatenate([t.numpy().reshape(-1) for t in tensors])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("central", [False, True])
def test_rge_is_its_definition(law: str, central: bool) -> None:
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal(10), rng.standard_normal((3, 10))
    rows = iter([piece for row in z for piece in split(row)])
    p = split(x)
    seen = random_gradient(lambda: torch.tensor(rosenbrock(join(p)), dtype=torch.float64), p, lambda shape: next(rows),
                           mu=1e-3, queries=3, central=central, law=law)  # fmt: skip
    sizes = {"gaussian": None, "sphere": [10], "tensor-sphere": [6, 4]}[law]
    u, factor = (z, 1.0) if sizes is None else reference.unit_directions(z, sizes)
    wanted = reference.random_gradient(rosenbrock, x, u, 1e-3, central=central, factor=factor)
    np.testing.assert_allclose(join(seen.gradient), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("central", [False, True])
def test_cge_is_its_definition(central: bool, masked: bool) -> None:
    rng = np.random.default_rng(1)
    x, p = rng.standard_normal(10), []
    p += split(x)
    mask = rng.random(10) < 0.5 if masked else None
    calls = 0

    def loss() -> Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor(rosenbrock(join(p)), dtype=torch.float64)

    masks = None if mask is None else [torch.tensor(mask[:6].reshape(2, 3)), torch.tensor(mask[6:])]
    seen = coordinate_gradient(loss, p, mu=1e-3, central=central, masks=masks)
    wanted = reference.coordinate_gradient(rosenbrock, x, 1e-3, central=central, mask=mask)
    np.testing.assert_allclose(join(seen.gradient), wanted, rtol=1e-11, atol=1e-11)
    active = 10 if mask is None else int(mask.sum())
    assert calls == (2 * active if central else active + 1)


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(ValueError, match="law = 'cauchy': must be one of 'gaussian', 'sphere', 'tensor-sphere'"):
        random_gradient(lambda: torch.zeros(()), [torch.zeros(2)], gaussian(0), mu=1e-3, law="cauchy")


@pytest.mark.parametrize("out", [False, True])
def test_projection(out: bool) -> None:
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((10, 3)))[0].T
    g = rng.standard_normal(10)
    seen = project(split(g), torch.tensor(basis), out=out)
    np.testing.assert_allclose(join(seen), reference.project(g, basis, out=out), atol=1e-13)
    np.testing.assert_allclose(join(project(seen, torch.tensor(basis), out=out)), join(seen), atol=1e-13)
    assert np.linalg.norm(basis @ join(seen)) == pytest.approx(0.0 if out else np.linalg.norm(basis @ g), abs=1e-12)


# -- laws of the estimators --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_rge_is_unbiased_and_its_variance_grows_with_d(law: str) -> None:
    # On a linear function the difference quotient is the slope, so that only the law of the directions is left.
    q, n = 4, 1500
    for d in (12, 48):
        slope = torch.tensor(np.random.default_rng(3).standard_normal(d))
        p, draw = [torch.zeros(d // 3, dtype=torch.float64), torch.zeros(d - d // 3, dtype=torch.float64)], gaussian(4)
        linear: Callable[[], Tensor] = partial(lambda s, t: s @ torch.cat(t), slope, p)
        seen = torch.stack([
            torch.cat(random_gradient(linear, p, draw, mu=1.0, queries=q, law=law).gradient) for _ in range(n)
        ])  # fmt: skip
        error = (seen.mean(0) - slope) / (seen.std(0) / math.sqrt(n))
        assert float(error.abs().max()) < 4.5  # of 60 means; a bias of a tenth of the slope shows as 5 and more
        if law != "tensor-sphere":
            squares = seen.square().sum(1)
            stated = reference.second_moment(float(slope.square().sum()), d, q, law)
            assert abs(float(squares.mean()) - stated) < 4 * float(squares.std()) / math.sqrt(n)
            assert float(squares.std()) / math.sqrt(n) < 0.03 * stated  # so the bound above means something


def test_cge_has_no_variance_and_its_bias_is_bounded() -> None:
    rng = np.random.default_rng(5)
    d = 8
    a = rng.standard_normal((d, d))
    hessian = torch.tensor(a @ a.T)
    p = [torch.tensor(rng.standard_normal(d))]
    truth = hessian @ p[0]

    def error(mu: float, central: bool = False) -> Tensor:
        return coordinate_gradient(lambda: p[0] @ hessian @ p[0] / 2, p, mu=mu, central=central).gradient[0] - truth

    lipschitz = float(torch.linalg.eigvalsh(hessian)[-1])
    for mu in (1e-1, 1e-2, 1e-3):
        assert float(error(mu).norm()) <= lipschitz * mu * math.sqrt(d) / 2
        torch.testing.assert_close(error(mu), mu / 2 * hessian.diagonal(), rtol=1e-7, atol=1e-11)
    assert float(error(1e-2, central=True).norm()) < 1e-11
    assert torch.equal(error(1e-2), error(1e-2))


# -- restoration -------------------------------------------------------------------------------------------------------

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def parameters(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(6)
    weight = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64).to(dtype)
    return [
        weight.contiguous(memory_format=torch.channels_last).requires_grad_(),
        weight[0, :, 0].clone().t().requires_grad_(),
        torch.tensor(0.3, dtype=dtype, requires_grad=True),
    ]


def bowl(p: list[Tensor]) -> Tensor:
    return torch.stack([(t.double() ** 2).sum() for t in p]).sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["rge", "central rge", "cge", "central cge"])
def test_parameters_come_back_bit_for_bit(dtype: torch.dtype, kind: str) -> None:
    p = parameters(dtype)
    before = [t.detach().clone() for t in p]
    draw, central = gaussian(7), kind.startswith("central")
    seen = (
        coordinate_gradient(lambda: bowl(p), p, mu=0.1, central=central)
        if kind.endswith("cge")
        else random_gradient(lambda: bowl(p), p, draw, mu=0.1, queries=3, central=central)
    )
    assert all(torch.equal(a, b) for a, b in zip(p, before, strict=True))
    assert [g.shape for g in seen.gradient] == [t.shape for t in p]
    if dtype is torch.float64 and kind == "central cge":  # strides of any kind
        assert worst(seen.gradient, [2 * t for t in before]) < 1e-12


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("kind", ["rge", "cge", "probe"])
def test_parameters_come_back_when_a_query_raises(kind: str, failing: int) -> None:
    p, calls = parameters(torch.float32), 0
    before = [t.detach().clone() for t in p]

    def loss() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise RuntimeError("out of budget")
        return bowl(p)

    def walk() -> None:
        with torch.no_grad(), Probe(p, lambda: [(t, torch.ones_like(t)) for t in p], copy=True) as probe:
            for position in (0.0, 1.0, -1.0):
                probe.to(position)
                loss()

    ask = {
        "rge": lambda: random_gradient(loss, p, gaussian(7), mu=0.1, queries=3),
        "cge": lambda: coordinate_gradient(loss, p, mu=0.1),
        "probe": walk,
    }
    with pytest.raises(RuntimeError, match="out of budget"):
        ask[kind]()
    assert calls == failing
    assert all(torch.equal(a, b) for a, b in zip(p, before, strict=True))


# -- replayed noise ----------------------------------------------------------------------------------------------------


def test_noise_in_parts_is_the_noise_drawn_at_once() -> None:
    p = [torch.zeros(2 * CHUNK + 40), torch.zeros(5, 3), torch.zeros(CHUNK + 16), torch.zeros(CHUNK + 17)]
    out = [torch.zeros_like(t) for t in p]
    generator = torch.Generator().manual_seed(8)
    for i, rows, z in noise(p, lambda shape: torch.randn(shape, generator=generator)):
        part(out[i], rows).copy_(z)
        assert z.numel() <= CHUNK + 16
    generator.manual_seed(8)
    for t in out:
        assert torch.equal(t, torch.randn(t.shape, generator=generator))


@pytest.mark.parametrize("copy", [False, True])
def test_a_probe_walks_along_its_direction_and_says_what_is_left(copy: bool) -> None:
    p = [torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(9))]
    clean, unit, draws = p[0].clone(), torch.arange(7.0, dtype=torch.float64), 0

    def direction() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal draws
        draws += 1
        yield p[0], unit

    with Probe(p, direction, copy) as probe:
        probe.to(0.5)
        torch.testing.assert_close(p[0], clean + 0.5 * unit, rtol=0, atol=1e-15)
        probe.to(-0.5)
        torch.testing.assert_close(p[0], clean - 0.5 * unit, rtol=0, atol=1e-14)
        rest = probe.release()
    assert draws == 2
    assert rest == (0.0 if copy else 0.5)
    torch.testing.assert_close(p[0] + rest * unit, clean, rtol=0, atol=0 if copy else 1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_not_walked_by_differences(dtype: torch.dtype) -> None:
    with pytest.raises(HyperparameterError, match=f"Mine: restore = 'replay' with {dtype} .* use restore='copy'"):
        refuse_half("Mine", [torch.zeros(1), torch.zeros(1, dtype=dtype)])
    refuse_half("Mine", [torch.zeros(1), torch.zeros(1, dtype=torch.float64)])


# -- update rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_update_rules_are_torchs(rule: str) -> None:
    draw = gaussian(10)
    ours = [draw((3, 2)), draw((4,))]
    theirs = [t.clone().requires_grad_() for t in ours]
    first, second = ([torch.zeros_like(t) for t in ours] for _ in range(2))
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.2)
        if rule == "sgd"
        else torch.optim.AdamW(theirs, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)
    )
    for t in range(1, 6):
        gradient = [draw(tuple(p.shape)) for p in ours]
        for p, g in zip(theirs, gradient, strict=True):
            p.grad = g.clone()
        optimizer.step()
        if rule == "sgd":
            momentum_(ours, gradient, first, lr=0.1, momentum=0.9, weight_decay=0.2)
        else:
            adam_(ours, gradient, first, second, t=t, lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2)
    assert worst(ours, [p.detach() for p in theirs]) < 1e-14
