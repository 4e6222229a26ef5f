"""Zeroth-order methods in an ordinary script: frozen parameters, copies, step sizes of 0, what cannot mean anything."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.methods.cma_es_torch import CMAES
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

STEPPING: list[Callable[..., Any]] = [
    ZOSGD, ZOCGE, ZOAdam, ZOSign, MeZO, MeZOMomentum, HiZOO, LOZO, ForwardGradient, DeepZero,
]  # fmt: skip
X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(1))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def loss_of(module: nn.Module) -> Tensor:
    return F.cross_entropy(module(X), Y)


def values(parameters: Any) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in parameters])


@pytest.mark.parametrize("constructor", [*STEPPING, CMAES])
def test_frozen_parameters_are_left_alone_and_nothing_is_spent_on_them(constructor: Callable[..., Any]) -> None:
    """A frozen layer is no part of the problem: the others go the way that they go when they are all that is given."""
    whole, part = net(), net()
    whole[0].requires_grad_(False)
    before = values(whole[0].parameters())
    one = constructor([{"params": whole[0].parameters()}, {"params": whole[2].parameters()}])
    other = constructor(part[2].parameters())
    for optimizer, module in ((one, whole), (other, part)):
        torch.manual_seed(3)
        for _ in range(2):
            optimizer.step(lambda module=module: loss_of(module))
    assert torch.equal(values(whole[0].parameters()), before)
    assert torch.equal(values(whole[2].parameters()), values(part[2].parameters()))
    assert not torch.equal(values(whole[2].parameters()), values(net()[2].parameters()))


def test_a_mask_keeps_its_place_beside_frozen_parameters() -> None:
    module = net()
    module[0].requires_grad_(False)
    mask = torch.tensor([[True, False, False, False], [False, False, False, True]])
    start = module[2].weight.detach().clone()
    ZOCGE(module.parameters(), lr=0.1, mask=[None, None, mask, None]).step(lambda: loss_of(module))
    assert torch.equal(module[2].weight.detach() != start, mask)


def test_where_all_parameters_are_frozen_all_are_trained_for_no_gradient_is_needed() -> None:
    module = net().requires_grad_(False)
    start = values(module.parameters())
    MeZO(module.parameters(), lr=0.1).step(lambda: loss_of(module))
    assert (values(module.parameters()) != start).all()


@pytest.mark.parametrize("constructor", STEPPING)
def test_a_step_size_of_zero_moves_nothing(constructor: Callable[..., Any]) -> None:
    module = net()
    start = values(module.parameters())
    optimizer = constructor(module.parameters(), lr=0.0)
    for _ in range(3):
        optimizer.step(lambda: loss_of(module))
    tolerance = 1e-15 if hasattr(optimizer, "restore") else 0.0  # replay walks back by differences
    torch.testing.assert_close(values(module.parameters()), start, rtol=0, atol=tolerance)


@pytest.mark.parametrize("constructor", STEPPING)
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_step_without_a_finite_loss_is_skipped_and_counted(
    constructor: Callable[..., Any], bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the parameters nor a moment may take what is not a number: the next step is as if it had not been."""
    module = net()
    optimizer = constructor(module.parameters(), lr=0.01)
    optimizer.step(lambda: loss_of(module))
    start = values(module.parameters())
    moments = copy.deepcopy({k: v for k, v in optimizer.state_dict().items() if k in ("state", "param_groups")})
    for _ in range(2):
        optimizer.step(lambda: loss_of(module) * bad)
    tolerance = 1e-15 if hasattr(optimizer, "restore") else 0.0  # replay walks back by differences
    torch.testing.assert_close(values(module.parameters()), start, rtol=0, atol=tolerance)
    after = optimizer.state_dict()
    torch.testing.assert_close({k: after[k] for k in moments}, moments, rtol=0, atol=0)
    assert optimizer.skipped == after["skipped"] == 2
    assert optimizer.notes() == ["2 steps skipped: a loss was not finite"]
    assert caplog.text.count("is skipped") == 1
    optimizer.step(lambda: loss_of(module))
    assert values(module.parameters()).isfinite().all()


def test_averages_of_a_group_that_came_later_are_not_taken_for_old_ones() -> None:
    """The first step of Adam has the size lr, whenever it comes."""
    module = net()
    optimizer = ZOAdam(module[0].parameters(), lr=0.01, eps=1e-12)
    for _ in range(5):
        optimizer.step(lambda: loss_of(module))
    start = values(module[2].parameters())
    optimizer.add_param_group({"params": module[2].parameters()})
    optimizer.step(lambda: loss_of(module))
    torch.testing.assert_close((values(module[2].parameters()) - start).abs(), torch.full_like(start, 0.01))


@pytest.mark.parametrize("constructor", [*STEPPING, CMAES, AdaHessian])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_on_with_the_same_bits(constructor: Callable[..., Any], way: Callable[[Any], Any]) -> None:
    """torch's own ``__getstate__`` keeps groups and state, and so would lose every option that is no group's."""
    module = net()
    optimizer = constructor(module.parameters())
    optimizer.register_step_post_hook(lambda *_: None)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5) if optimizer.defaults.get("lr") else None
    optimizer.step(lambda: loss_of(module))
    twin, again = way((module, optimizer))
    for _ in range(2):
        optimizer.step(lambda: loss_of(module))
        again.step(lambda: loss_of(twin))
    assert torch.equal(values(module.parameters()), values(twin.parameters()))


@pytest.mark.parametrize("constructor", [MeZO, ZOSGD, HiZOO, ZOCGE])
def test_a_loss_that_is_a_python_float_keeps_its_digits(constructor: Callable[..., Any]) -> None:
    ends = []
    for read in (float, lambda loss: loss):
        module = net()
        torch.manual_seed(3)
        constructor(module.parameters(), lr=0.1).step(lambda module=module, read=read: read(loss_of(module)))
        ends.append(values(module.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("constructor", "wrong", "sentence"),
    [
        (ZOSGD, {"queries": 2.5}, r"ZOSGD: queries = 2.5: must be a whole number in \[1, inf\)"),
        (ZOAdam, {"queries": 2.5}, "ZOAdam: queries = 2.5: must be a whole number"),
        (ZOAdam, {"betas": (0.9,)}, r"ZOAdam: betas = \(0.9,\): must be two numbers"),
        (ZOSign, {"queries": 2.5}, "ZOSign: queries = 2.5: must be a whole number"),
        (ForwardGradient, {"queries": 1.5}, "ForwardGradient: queries = 1.5: must be a whole number"),
        (LOZO, {"rank": 1.5}, "LOZO: rank = 1.5: must be a whole number"),
        (LOZO, {"period": 1.5}, "LOZO: period = 1.5: must be a whole number"),
        (DeepZero, {"mask_every": 1.5}, "DeepZero: mask_every = 1.5: must be a whole number"),
        (DeepZero, {"grasp_queries": 1.5}, "DeepZero: grasp_queries = 1.5: must be a whole number"),
        (CMAES, {"population": 4.5}, "CMAES: population = 4.5: must be a whole number"),
    ],
)
def test_counts_are_whole_numbers(constructor: Callable[..., Any], wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        constructor(net().parameters(), **wrong)


@pytest.mark.parametrize(
    ("constructor", "word", "value"),
    [(MeZO, "eps", 0.1), (ZOSGD, "mu", 0.1), (LOZO, "rank", 3), (MeZO, "restore", "copy")],
)
def test_an_option_of_all_groups_is_refused_in_one(constructor: Callable[..., Any], word: str, value: Any) -> None:
    with pytest.raises(HyperparameterError, match=rf"{word} = {value!r} in a group: all parameters share one"):
        constructor([{"params": net().parameters(), word: value}])


@pytest.mark.parametrize("constructor", [*STEPPING, CMAES])
def test_sparse_parameters_are_refused(constructor: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"a parameter has layout torch.sparse_coo: must be dense \(torch.strided\)"):
        constructor([torch.zeros(2, 2).to_sparse()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zo_adam_refuses_half_precision_where_its_averages_would_stand_still(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"ZOAdam: a parameter has dtype {dtype}: must be float32 or float64"):
        ZOAdam([torch.zeros(2, dtype=dtype)])


# -- recorded noise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restore", ["replay", "copy"])
def test_mezo_takes_recorded_noise(restore: str) -> None:
    module, twin = net(), net()
    lr, eps, decay = 0.1, 1e-3, 0.1
    groups = [
        {"params": [module[0].weight, module[2].weight], "weight_decay": decay},
        {"params": [module[0].bias, module[2].bias]},
    ]
    optimizer = MeZO(groups, lr=lr, eps=eps, restore=restore)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
    mine = [module[0].weight, module[2].weight, module[0].bias, module[2].bias]
    theirs = [twin[0].weight, twin[2].weight, twin[0].bias, twin[2].bias]
    draw = torch.Generator().manual_seed(7)
    for step in range(5):
        z = [torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in mine]
        optimizer.step(lambda: loss_of(module), probes=z)
        schedule.step()
        with torch.no_grad():
            clean = [p.clone() for p in theirs]
            losses = []
            for at in (eps, -eps):
                for p, c, u in zip(theirs, clean, z, strict=True):
                    p.copy_(c + at * u)
                losses.append(float(loss_of(twin)))
            slope = (losses[0] - losses[1]) / (2 * eps)
            for i, (p, c, u) in enumerate(zip(theirs, clean, z, strict=True)):
                p.copy_(c - lr * 0.1 ** (step // 2) * (slope * u + (decay if i < 2 else 0.0) * c))
        torch.testing.assert_close(values(mine), values(theirs), rtol=0, atol=1e-10)


def test_noise_of_other_shapes_is_refused_before_anything_moves() -> None:
    module = net()
    start = values(module.parameters())
    with pytest.raises(CurvebenchError, match=r"MeZO: probes of shapes \[\(4, 3\)\]: must be \[\(4, 3\), \(4,\)"):
        MeZO(module.parameters()).step(lambda: loss_of(module), probes=[torch.ones(4, 3)])
    assert torch.equal(values(module.parameters()), start)
