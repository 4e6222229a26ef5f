"""Zeroth-order methods beside MeZO, used alone: each does what its docstring says, in terms that are computed apart."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import reference_zeroth as reference
from curvebench.kernels.zeroth_torch import coordinate_gradient
from curvebench.methods.deepzero_torch import DeepZero
from curvebench.methods.forward_gradient_torch import ForwardGradient
from curvebench.methods.hizoo_torch import HiZOO
from curvebench.methods.lozo_torch import LOZO
from curvebench.methods.mezo_momentum_torch import MeZOMomentum
from curvebench.methods.mezo_torch import MeZO
from curvebench.methods.zo_adam_torch import ZOAdam
from curvebench.methods.zo_cge_torch import ZOCGE
from curvebench.methods.zo_sgd_torch import ZOSGD
from curvebench.methods.zo_sign_torch import ZOSign
from curvebench.oracle.forward_torch import closure_jvp
from curvebench.oracle.optimizer_torch import OracleOptimizer
from curvebench.oracle.standalone_torch import AutogradOracle

Make = Callable[..., Any]

METHODS: dict[str, tuple[Make, dict[str, Any], int]] = {
    "zo-sgd": (ZOSGD, {"lr": 0.02, "momentum": 0.5}, 9),
    "zo-sgd-central": (ZOSGD, {"lr": 0.02, "central": True, "law": "sphere"}, 16),
    "zo-cge": (ZOCGE, {"lr": 0.1, "momentum": 0.5}, 12),
    "zo-cge-central": (ZOCGE, {"lr": 0.1, "central": True}, 22),
    "zo-adam": (ZOAdam, {"lr": 0.05}, 9),
    "zo-sign": (ZOSign, {"lr": 0.03}, 9),
    "mezo-momentum": (MeZOMomentum, {"lr": 0.005}, 2),
    "mezo-momentum-copy": (MeZOMomentum, {"lr": 0.005, "restore": "copy"}, 2),
    "hizoo": (HiZOO, {"lr": 0.02, "alpha": 1e-3}, 3),
    "lozo": (LOZO, {"lr": 0.02, "period": 4}, 2),
    "forward-gradient": (ForwardGradient, {"lr": 0.05, "queries": 2, "momentum": 0.5}, 2),
    "deepzero": (DeepZero, {"lr": 0.1, "sparsity": 0.5, "mask_every": 3, "grasp_queries": 4}, 8),
}
"""Constructor, arguments, and losses (or directional derivatives) of a later step on :class:`Bowl`."""


class Bowl:
    """``1/2 sum a_i theta_i^2`` in a matrix [2, 4] and a vector [3]: 11 parameters; remembers every point asked."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.curvature = [torch.tensor(rng.uniform(0.5, 2.0, shape)) for shape in ((2, 4), (3,))]
        self.parameters = [torch.tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((2, 4), (3,))]
        self.asked: list[list[Tensor]] = []
        self.losses: list[float] = []

    def __call__(self) -> Tensor:
        self.asked.append([p.detach().clone() for p in self.parameters])
        value = torch.stack([(a * p**2).sum() / 2 for a, p in zip(self.curvature, self.parameters, strict=True)]).sum()
        self.losses.append(float(value.detach()))
        return value

    def copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def numpy(self, x: np.ndarray) -> float:
        return float((flat(self.curvature) * x**2).sum() / 2)


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(tensors: list[Tensor]) -> np.ndarray:
    return np.concatenate([t.detach().numpy().reshape(-1) for t in tensors])


def probes(bowl: Bowl, stream: str, rows: int, gen: torch.Generator | None = None) -> np.ndarray:
    """The first directions ``[rows, 11]`` of a stream, as an optimiser with :func:`generator` draws them."""
    opened = AutogradOracle(bowl.parameters, None, gen or generator()).stream(stream)
    return np.stack([flat([opened.draw("normal", tuple(p.shape)) for p in bowl.parameters]) for _ in range(rows)])


def make(name: str, bowl: Bowl, **more: Any) -> Any:
    constructor, arguments, _ = METHODS[name]
    if constructor is not ZOCGE:
        more.setdefault("generator", generator())
    return constructor(bowl.parameters, **{**arguments, **more})


# -- what all of them do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_descends_in_a_plain_loop_and_asks_what_it_says(name: str) -> None:
    bowl = Bowl()
    optimizer = make(name, bowl)
    assert isinstance(optimizer, torch.optim.Optimizer)
    first = optimizer.step(bowl)
    bowl.losses.clear()
    optimizer.step(bowl)
    assert len(bowl.losses) == METHODS[name][2]
    for _ in range(100):
        last = optimizer.step(bowl)
    assert float(last) < 0.2 * float(first)
    assert all(p.grad is None for p in bowl.parameters)


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_state_continues_with_the_same_bits(name: str) -> None:
    bowl, other = Bowl(), Bowl()
    optimizer = make(name, bowl)
    for _ in range(5):
        optimizer.step(bowl)
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    with torch.no_grad():
        for mine, theirs in zip(other.parameters, bowl.parameters, strict=True):
            mine.copy_(theirs)
    again = METHODS[name][0](other.parameters, **METHODS[name][1])
    again.load_state_dict(torch.load(stream, weights_only=True))
    for _ in range(5):
        assert float(optimizer.step(bowl)) == float(again.step(other))
    assert all(torch.equal(a, b) for a, b in zip(bowl.parameters, other.parameters, strict=True))
    dtypes = [[v.dtype for v in s.values() if isinstance(v, Tensor)] for s in optimizer.state.values()]
    assert dtypes == [[v.dtype for v in s.values() if isinstance(v, Tensor)] for s in again.state.values()]


@pytest.mark.parametrize("name", METHODS)
def test_the_global_generator_is_seed_and_nothing_else(name: str) -> None:
    def run(more: dict[str, Any]) -> np.ndarray:
        bowl = Bowl()
        torch.manual_seed(3)
        before = torch.get_rng_state()
        optimizer = METHODS[name][0](bowl.parameters, **METHODS[name][1], **more)
        optimizer.step(bowl)
        assert torch.equal(before, torch.get_rng_state())
        return flat(bowl.parameters)

    first = run({})
    assert np.array_equal(first, run({}))
    if METHODS[name][0] is not ZOCGE:
        assert np.array_equal(first, run({"generator": generator(3)}))
        assert not np.array_equal(first, run({"generator": generator(4)}))


@pytest.mark.parametrize("name", METHODS)
def test_two_groups_are_one_step_and_have_their_own_step_sizes(name: str) -> None:
    together, apart = Bowl(), Bowl()
    constructor, arguments, _ = METHODS[name]
    more = {} if constructor is ZOCGE else {"generator": generator()}
    one = make(name, together)
    groups = [{"params": apart.parameters[:1]}, {"params": apart.parameters[1:], "lr": 2 * arguments["lr"]}]
    two = constructor(groups, **arguments, **more)
    before = together.copy()
    one.step(together)
    two.step(apart)
    np.testing.assert_allclose(flat(apart.parameters[:1]), flat(together.parameters[:1]), rtol=1e-13)
    moved = flat(together.parameters[1:]) - flat(before[1:])
    np.testing.assert_allclose(flat(apart.parameters[1:]) - flat(before[1:]), 2 * moved, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_query_that_raises_leaves_the_parameters_where_they_were(name: str, failing: int) -> None:
    bowl = Bowl()
    optimizer, before, calls = make(name, bowl), bowl.copy(), 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise RuntimeError("out of budget")
        return bowl()

    if failing > METHODS[name][2]:
        optimizer.step(closure)
        return
    with pytest.raises(RuntimeError, match="out of budget"):
        optimizer.step(closure)
    exact = getattr(optimizer, "restore", "copy") == "copy"
    np.testing.assert_allclose(flat(bowl.parameters), flat(before), rtol=0, atol=0 if exact else 1e-15)


@pytest.mark.parametrize("name", METHODS)
def test_bad_input_is_refused_at_construction(name: str) -> None:
    constructor, arguments, _ = METHODS[name]
    title = constructor.__name__
    for wrong, allowed in (("lr", r"\[0, inf\)"), ("weight_decay", r"\[0, inf\)")):
        with pytest.raises(HyperparameterError, match=rf"{title}: {wrong} = -1.0: must lie in {allowed}"):
            constructor(Bowl().parameters, **{**arguments, wrong: -1.0})
    with pytest.raises(TypeError, match=f"{title}: a parameter has dtype torch.int64: must be floating"):
        constructor([torch.zeros(2, dtype=torch.int64)], **arguments)
    with pytest.warns(UserWarning, match="duplicate"), pytest.raises(CurvebenchError, match="given twice"):
        constructor([torch.zeros(2)] * 2, **arguments)
    with pytest.raises(CurvebenchError, match="needs a closure that returns the loss"):
        constructor(Bowl().parameters, **arguments).step()


@pytest.mark.parametrize(
    ("constructor", "wrong", "sentence"),
    [
        (ZOSGD, {"mu": 0.0}, r"ZOSGD: mu = 0.0: must lie in \(0, inf\)"),
        (ZOSGD, {"queries": 0}, r"ZOSGD: queries = 0: must lie in \[1, inf\)"),
        (ZOSGD, {"law": "cauchy"}, "ZOSGD: law = 'cauchy': must be one of 'gaussian', 'sphere', 'tensor-sphere'"),
        (ZOSGD, {"momentum": 1.0}, r"ZOSGD: momentum = 1.0: must lie in \[0, 1\)"),
        (ZOCGE, {"mu": -1e-3}, r"ZOCGE: mu = -0.001: must lie in \(0, inf\)"),
        (ZOCGE, {"mask": [None]}, "ZOCGE: mask: must be one per parameter, of its shape, or None"),
        (ZOCGE, {"mask": [None, torch.ones(4)]}, "ZOCGE: mask"),
        (ZOAdam, {"betas": (0.9, 1.0)}, r"ZOAdam: beta2 = 1.0: must lie in \[0, 1\)"),
        (ZOSign, {"mu": 0.0}, "ZOSign: mu = 0.0"),
        (MeZOMomentum, {"restore": "hope"}, "MeZOMomentum: restore = 'hope': must be one of 'replay', 'copy'"),
        (HiZOO, {"alpha": 1.5}, r"HiZOO: alpha = 1.5: must lie in \[0, 1\]"),
        (HiZOO, {"eps": 0.0}, "HiZOO: eps = 0.0"),
        (LOZO, {"rank": 0}, r"LOZO: rank = 0: must lie in \[1, inf\)"),
        (LOZO, {"period": 0}, "LOZO: period = 0"),
        (ForwardGradient, {"queries": 0}, "ForwardGradient: queries = 0"),
        (DeepZero, {"sparsity": 1.0}, r"DeepZero: sparsity = 1.0: must lie in \[0, 1\)"),
        (DeepZero, {"ranking": "best"}, "DeepZero: ranking = 'best': must be one of 'magnitude', 'signed', 'uniform'"),
        (DeepZero, {"mask_every": 0}, "DeepZero: mask_every = 0"),
    ],
)
def test_each_option_has_its_range(constructor: Make, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        constructor(Bowl().parameters, **wrong)


@pytest.mark.parametrize("constructor", [MeZOMomentum, HiZOO, LOZO])
def test_half_precision_needs_a_copy(constructor: Make) -> None:
    weight = torch.zeros(2, 2, dtype=torch.bfloat16)
    with pytest.raises(HyperparameterError, match=r"restore = 'replay' with torch.bfloat16 .* use restore='copy'"):
        constructor([weight])
    optimizer = constructor([weight], restore="copy", lr=1e-30, generator=generator())
    for _ in range(20):
        optimizer.step(lambda: (weight.float() - 1).square().sum())
    assert float(weight.abs().max()) < 1e-25  # nothing but the updates moved it


@pytest.mark.parametrize("constructor", [MeZOMomentum, HiZOO, LOZO])
def test_replay_drifts_by_rounding_only(constructor: Make) -> None:
    weight = torch.randn(40, 25, generator=generator(7))
    before = weight.clone()
    optimizer = constructor([weight], lr=0.0, generator=generator())
    for _ in range(1000):
        optimizer.step(lambda: weight.square().sum())
    drift = float((weight - before).norm() / before.norm())
    print(f"{constructor.__name__}: {drift:.1e} in 1000 float32 steps")
    assert 0 < drift <= 5e-6


def test_a_refused_group_is_not_added() -> None:
    bowl = Bowl()
    optimizer = ZOSGD(bowl.parameters[:1])
    with pytest.raises(HyperparameterError, match="lr"):
        optimizer.add_param_group({"params": bowl.parameters[1:], "lr": -1.0})
    assert len(optimizer.param_groups) == 1
    OracleOptimizer.check_group(optimizer, {})  # a class without options need not override it


# -- each by itself ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["gaussian", "sphere", "tensor-sphere"])
def test_zo_sgd_and_zo_sign_step_along_the_estimate(law: str) -> None:
    bowl = Bowl()
    x, z = flat(bowl.parameters), probes(bowl, "directions", 8)
    u, factor = (z, 1.0) if law == "gaussian" else reference.unit_directions(z, [11] if law == "sphere" else [8, 3])
    g = reference.random_gradient(bowl.numpy, x, u, 1e-3, factor=factor)
    ZOSGD(bowl.parameters, lr=0.02, law=law, weight_decay=0.3, generator=generator()).step(bowl)
    np.testing.assert_allclose(flat(bowl.parameters), x - 0.02 * (g + 0.3 * x), rtol=1e-10)
    bowl = Bowl()
    ZOSign(bowl.parameters, lr=0.02, law=law, weight_decay=0.3, generator=generator()).step(bowl)
    np.testing.assert_allclose(flat(bowl.parameters), x - 0.02 * (np.sign(g) + 0.3 * x), rtol=1e-12)


def test_zo_adam_is_adam_on_the_estimates() -> None:
    bowl, gen = Bowl(), generator()
    optimizer = ZOAdam(bowl.parameters, lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, generator=generator())
    theirs = [p.detach().clone().requires_grad_() for p in bowl.parameters]
    adam = torch.optim.AdamW(theirs, lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1)
    for _ in range(4):
        g = reference.random_gradient(bowl.numpy, flat(bowl.parameters), probes(bowl, "directions", 8, gen), 1e-3)
        theirs[0].grad, theirs[1].grad = torch.tensor(g[:8].reshape(2, 4)), torch.tensor(g[8:])
        adam.step()
        optimizer.step(bowl)
        np.testing.assert_allclose(flat(bowl.parameters), flat(theirs), rtol=1e-8)


@pytest.mark.parametrize("masked", [False, True])
def test_zo_cge_is_sgd_on_the_estimates(masked: bool) -> None:
    bowl = Bowl()
    masks = [torch.arange(8).view(2, 4) % 3 == 0, None] if masked else None
    optimizer = ZOCGE(bowl.parameters, lr=0.1, mu=1e-2, mask=masks, momentum=0.6, weight_decay=0.1)
    theirs = [p.detach().clone().requires_grad_() for p in bowl.parameters]
    sgd = torch.optim.SGD(theirs, lr=0.1, momentum=0.6, weight_decay=0.1)
    for _ in range(4):
        x = flat(theirs)
        mask = np.concatenate([masks[0].numpy().reshape(-1), np.ones(3, bool)]) if masks else None  # type: ignore[union-attr]
        g = reference.coordinate_gradient(bowl.numpy, x, 1e-2, mask=mask)
        theirs[0].grad, theirs[1].grad = torch.tensor(g[:8].reshape(2, 4)), torch.tensor(g[8:])
        sgd.step()
        optimizer.step(bowl)
        np.testing.assert_allclose(flat(bowl.parameters), flat(theirs), rtol=1e-10)


@pytest.mark.parametrize("constructor", [MeZOMomentum, HiZOO])
@pytest.mark.parametrize("restore", ["replay", "copy"])
def test_without_their_addition_they_are_mezo(constructor: Make, restore: str) -> None:
    off = {"momentum": 0.0} if constructor is MeZOMomentum else {"alpha": 0.0}
    one, two = Bowl(), Bowl()
    ours = constructor(one.parameters, lr=0.02, weight_decay=0.1, restore=restore, generator=generator(), **off)
    mezo = MeZO(two.parameters, lr=0.02, weight_decay=0.1, restore=restore, generator=generator())
    for _ in range(5):
        ours.step(one)
        mezo.step(two)
    np.testing.assert_allclose(flat(one.parameters), flat(two.parameters), rtol=1e-10)


@pytest.mark.parametrize("restore", ["replay", "copy"])
def test_mezo_momentum_by_hand(restore: str) -> None:
    bowl, gen = Bowl(), generator()
    optimizer = MeZOMomentum(bowl.parameters, lr=0.02, eps=1e-2, momentum=0.7, weight_decay=0.1, restore=restore,
                             generator=generator())  # fmt: skip
    x, b = flat(bowl.parameters), np.zeros(11)
    for _ in range(5):
        (z,) = probes(bowl, "mezo", 1, gen)
        c = (bowl.numpy(x + 1e-2 * z) - bowl.numpy(x - 1e-2 * z)) / 2e-2
        b = 0.7 * b + c * z + 0.1 * x
        x = x - 0.02 * b
        optimizer.step(bowl)
        np.testing.assert_allclose(flat(bowl.parameters), x, rtol=1e-10)


@pytest.mark.parametrize("restore", ["replay", "copy"])
def test_hizoo_by_hand(restore: str) -> None:
    bowl, gen = Bowl(), generator()
    optimizer = HiZOO(bowl.parameters, lr=0.02, eps=1e-2, alpha=0.3, weight_decay=0.1, restore=restore,
                      generator=generator())  # fmt: skip
    x, h = flat(bowl.parameters), np.ones(11)
    for _ in range(5):
        (z,) = probes(bowl, "mezo", 1, gen)
        u = z / np.sqrt(h)
        middle, above, below = bowl.numpy(x), bowl.numpy(x + 1e-2 * u), bowl.numpy(x - 1e-2 * u)
        h = 0.7 * h + 0.3 * abs(above + below - 2 * middle) * h * z**2 / (2 * 1e-2**2)
        x = (1 - 0.02 * 0.1) * x - 0.02 * (above - below) / 2e-2 * z / np.sqrt(h)
        optimizer.step(bowl)
        np.testing.assert_allclose(flat([optimizer.state[p]["h"] for p in bowl.parameters]), h, rtol=1e-6)
        np.testing.assert_allclose(flat(bowl.parameters), x, rtol=1e-6)
    assert h.min() > 0
    assert h.std() > 0.1


@pytest.mark.parametrize("restore", ["replay", "copy"])
def test_lozo_updates_along_the_direction_that_it_measured(restore: str) -> None:
    # The released code does not on the steps that redraw V (here 0, 3, 6): cosines of -0.11 and 0.09.
    bowl = Bowl()
    optimizer = LOZO(bowl.parameters, lr=0.02, eps=1e-2, rank=1, period=3, restore=restore, generator=generator())
    rows, kept = [], []  # of V's row space, and its seed
    for _ in range(8):
        before = bowl.copy()
        bowl.asked.clear()
        bowl.losses.clear()
        optimizer.step(bowl)
        above, below = bowl.asked
        direction = (flat(above) - flat(below)) / 2e-2
        slope = (bowl.losses[0] - bowl.losses[1]) / 2e-2
        moved = flat(bowl.parameters) - flat(before)
        np.testing.assert_allclose(moved, -0.02 * slope * direction, rtol=1e-8, atol=1e-13)
        matrix = direction[:8].reshape(2, 4)
        assert np.linalg.matrix_rank(matrix, tol=1e-8) == 1
        rows.append(matrix[0] / np.linalg.norm(matrix[0]))
        kept.append(optimizer.state_dict()["seed"])
    assert [a == b for a, b in zip(kept[1:], kept[:-1], strict=True)] == [True, True, False] * 2 + [True]
    same = [abs(float(a @ b)) for a, b in zip(rows[1:], rows[:-1], strict=True)]
    assert all(c == pytest.approx(1.0) for i, c in enumerate(same) if i not in (2, 5))  # the row space is V's
    assert max(same[2], same[5]) < 0.999
    assert not optimizer.state  # nothing is kept but the seed


def test_lozo_takes_kernels_as_matrices() -> None:
    weight = torch.ones(3, 2, 2, 2, dtype=torch.float64)
    asked: list[Tensor] = []

    def closure() -> Tensor:
        asked.append(weight.clone())
        return weight.square().sum()

    LOZO([weight], rank=2, eps=0.5, generator=generator()).step(closure)
    assert np.linalg.matrix_rank((asked[0] - asked[1]).view(3, 8).numpy(), tol=1e-8) == 2


def test_forward_gradient_is_the_projection_on_its_directions() -> None:
    bowl = Bowl()
    x, v = flat(bowl.parameters), probes(bowl, "directions", 3)
    gradient = flat(bowl.curvature) * x
    loss = ForwardGradient(bowl.parameters, lr=0.05, queries=3, weight_decay=0.1, generator=generator()).step(bowl)
    wanted = x - 0.05 * ((v @ gradient) @ v / 3 + 0.1 * x)
    np.testing.assert_allclose(flat(bowl.parameters), wanted, rtol=1e-12)
    assert float(loss) == pytest.approx(bowl.numpy(x))


def test_closure_jvp_is_exact_and_leaves_nothing_behind() -> None:
    bowl = Bowl()
    before, v = bowl.copy(), [torch.ones(2, 4, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64)]
    value, derivative = closure_jvp(bowl, bowl.parameters, v)
    bowl().backward()
    gradient = flat([p.grad for p in bowl.parameters if p.grad is not None])
    assert float(derivative) == pytest.approx(float(gradient @ flat(v)), rel=1e-14)
    assert float(value) == bowl.losses[-1]
    assert all(torch.equal(a, b) for a, b in zip(bowl.parameters, before, strict=True))
    with torch.autograd.forward_ad.dual_level():
        assert torch.autograd.forward_ad.unpack_dual(bowl.parameters[0]).tangent is None


@pytest.mark.parametrize(
    ("closure", "sentence"),
    [
        (None, "needs a closure that returns the loss"),
        (lambda: 1.0, "the closure returned float"),
        (lambda: torch.ones(()), "carries no tangent: it is detached, or does not depend on the parameters"),
    ],
)
def test_closure_jvp_refuses(closure: Any, sentence: str) -> None:
    bowl = Bowl()
    with pytest.raises(CurvebenchError, match=sentence):
        closure_jvp(closure, bowl.parameters, bowl.copy())


class Layers:
    """Two matrices of different curvature and a bias: ZO-GraSP must find them different."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        scales = (((6, 5), 3.0), ((4, 5), 0.3), ((5,), 1.0))
        self.curvature = [torch.tensor(rng.uniform(0.5, 1.5, shape) * scale) for shape, scale in scales]
        self.parameters = [torch.tensor(rng.standard_normal(s)) for s in ((6, 5), (4, 5), (5,))]
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.stack([(a * p**2).sum() / 2 for a, p in zip(self.curvature, self.parameters, strict=True)]).sum()

    def numpy(self, x: np.ndarray) -> float:
        return float((flat(self.curvature) * x**2).sum() / 2)


@pytest.mark.parametrize("ranking", ["magnitude", "signed", "uniform"])
def test_deepzero_prunes_by_zo_grasp(ranking: str) -> None:
    net, mu = Layers(), 5e-3
    x = flat(net.parameters)
    opened = AutogradOracle(net.parameters, None, generator()).stream("grasp")
    u = np.stack([flat([opened.draw("normal", tuple(p.shape)) for p in net.parameters]) for _ in range(16)])
    g0 = reference.random_gradient(net.numpy, x, u, mu)
    g1 = reference.random_gradient(net.numpy, x + mu * g0, u, mu)
    score = (-x * (g1 - g0) / mu)[:50]
    worth = np.abs(score) if ranking == "magnitude" else -score
    pruned = np.argsort(worth)[:35]
    wanted = [21, 14] if ranking == "uniform" else [int((pruned < 30).sum()), int((pruned >= 30).sum())]

    optimizer = DeepZero(net.parameters, sparsity=0.7, grasp_queries=16, ranking=ranking, mu=mu, generator=generator())
    with pytest.raises(CurvebenchError, match="the first step decides how many weights"):
        optimizer.masks()
    optimizer.step(net)
    masks = optimizer.masks()
    assert [int((~m).sum()) for m in masks[:2]] == wanted
    assert [m is None for m in masks] == [False, False, True]
    assert wanted == [21, 14] or ranking != "uniform"
    assert wanted != [21, 14] or ranking == "uniform"
    active = 15 + 5
    assert net.calls == active + 1 + (0 if ranking == "uniform" else 2 * (16 + 1))
    net.calls = 0
    optimizer.step(net)
    assert net.calls == active + 1


def test_deepzero_moves_active_coordinates_by_cge_and_redraws_them() -> None:
    net = Layers()
    optimizer = DeepZero(net.parameters, lr=0.1, sparsity=0.7, grasp_queries=4, mask_every=2, momentum=0.0,
                         weight_decay=0.0, generator=generator())  # fmt: skip
    drawn = []
    for _ in range(4):
        before = [p.clone() for p in net.parameters]
        optimizer.step(net)
        masks = optimizer.masks()
        moved = [p.clone() for p in net.parameters]
        for p, b in zip(net.parameters, before, strict=True):
            p.copy_(b)
        gradient = coordinate_gradient(net, net.parameters, mu=5e-3, masks=masks).gradient
        np.testing.assert_allclose(flat(moved), flat(before) - 0.1 * flat(gradient), rtol=1e-12, atol=1e-15)
        for p, m in zip(net.parameters, moved, strict=True):
            p.copy_(m)
        drawn.append(masks[0].clone())
    same = [torch.equal(a, b) for a, b in zip(drawn[1:], drawn[:-1], strict=True)]
    assert same == [True, False, True]
    assert len({int(mask.sum()) for mask in drawn}) == 1
