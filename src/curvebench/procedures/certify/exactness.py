"""Statements about approximations: where they are exact, what sketches keep, and whether results repeat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from curvebench.procedures.certify.lab import Array, Run, problem
from curvebench.procedures.certify.statement import Measured, Statement

RANKED = (("sgd", 0.1), ("momentum", 0.05), ("nesterov", 0.05), ("adam", 0.01), ("adamw", 0.01), ("lbfgs", None))
TASKS = ("least-squares", "logistic-breast-cancer", "teacher-student-tanh")


def statements() -> Iterator[Statement]:
    """The statements of this file."""
    yield Statement(
        "kfac-exact-deep-linear",
        "K-FAC's type-2 blocks equal the Gauss-Newton blocks of a deep linear network with squared loss; "
        "value: largest relative difference",
        _kfac, high=1e-10,
    )  # fmt: skip
    yield Statement(
        "mfac-woodbury-dense",
        "M-FAC's window and its static form equal the dense inverse (m = 16, d = 40); value: largest relative error",
        _mfac, high=1e-10,
    )  # fmt: skip
    yield Statement(
        "mkor-rank-one-inverse",
        "MKOR's rank-one step is the inverse of the rank-one-updated factor; value: largest relative difference",
        _mkor, high=1e-10,
    )  # fmt: skip
    yield Statement(
        "mezo-copy-bit-exact",
        "MeZO with restore = 'copy' restores float32 parameters bit for bit: elements that differ after 50 steps at "
        "lr 1e-30",
        lambda: _mezo("copy", 50), low=0.0, high=0.0,
    )  # fmt: skip
    yield Statement(
        "mezo-replay-drift",
        "MeZO with restore = 'replay' drifts by at most 5e-6 relative over 1,000 float32 steps at lr 1e-30",
        lambda: _mezo("replay", 1000), high=5e-6,
    )  # fmt: skip
    yield Statement(
        "srht-excess",
        "sketched least squares on a coherent design (8,192 x 50, 1,000 rows): median excess residual of SRHT, 5 draws",
        lambda: _sketch("srht"), high=0.05,
    )  # fmt: skip
    yield Statement(
        "uniform-sampling-fails",
        "the same for uniform row sampling, which misses the heavy rows",
        lambda: _sketch("uniform"), low=0.2,
    )  # fmt: skip
    yield Statement(
        "same-seed-same-bits",
        "two runs of SGD on mini-batches with one seed end at the same bits: parameters that differ after 50 steps",
        _repeats, low=0.0, high=0.0,
    )  # fmt: skip
    yield Statement(
        "ranking-stable-between-seeds",
        f"Kendall's tau of the order of {len(RANKED)} methods between three seed blocks, mean over {', '.join(TASKS)}",
        _ranking, low=0.6,
    )  # fmt: skip


def _relative(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def _kfac() -> Measured:
    """Blocks of a 4-5-3-2 linear network on 7 samples."""
    import torch

    from curvebench.methods.kfac_torch import KFAC
    from curvebench.oracle.dense_torch import dense
    from curvebench.oracle.torch import Objective, TorchOracle
    from curvebench.spec import Query
    from curvebench.tasks.criteria_torch import CRITERIA
    from curvebench.tasks.mlp import torch_mlp

    generator = torch.Generator().manual_seed(0)
    model = torch_mlp([4, 5, 3, 2], "identity", bias=False).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(generator=generator)
    needs = (Query.GRADIENT, Query.LAYER_STATISTICS, Query.GGNVP)
    oracle = TorchOracle(Objective(model, CRITERIA["squared-norm"], "gaussian"), needs)
    x, y = (torch.randn(7, k, dtype=torch.float64, generator=generator) for k in (4, 2))
    oracle.begin_step(0, (x, y))
    method = KFAC(model, lr=0.1, fisher="type-2")
    method.oracle = oracle
    method.precondition()
    matrix = dense(oracle.at(needs=(Query.GGNVP,)).ggnvps, oracle.parameters).numpy()
    worst, start = 0.0, 0
    for name, p in zip(("0", "2", "4"), oracle.parameters, strict=True):
        A, G = method.factors(name)
        block = matrix[start : start + p.numel(), start : start + p.numel()]
        worst, start = max(worst, _relative(np.kron(G.numpy(), A.numpy()), block)), start + p.numel()
    return Measured(worst)


def _mfac() -> Measured:
    import torch

    from curvebench.kernels import reference_mfac
    from curvebench.kernels.mfac_static_torch import StaticInverse
    from curvebench.kernels.mfac_torch import SlidingWindow

    rng, damping = np.random.default_rng(0), 1e-3
    G, x = rng.standard_normal((16, 40)), rng.standard_normal(40)
    truth = reference_mfac.inverse(G, damping) @ x
    window = SlidingWindow(16, 40, damping, dtype=torch.float64)
    for row in G:
        window.push(torch.tensor(row))
    static = StaticInverse(torch.tensor(G), damping)
    found = (window.solve(torch.tensor(x)).numpy(), static.ihvp(torch.tensor(x)).numpy())
    return Measured(max(_relative(f, truth) for f in found))


def _mkor() -> Measured:
    import torch

    from curvebench.kernels import reference_kronecker
    from curvebench.kernels.mkor_torch import rank_one

    rng = np.random.default_rng(0)
    worst = 0.0
    for rule in ("code", "ema"):
        J = np.eye(12)
        for _ in range(20):
            v = rng.standard_normal(12)
            found = rank_one(torch.tensor(J), torch.tensor(v), rule).numpy()
            worst = max(worst, _relative(found, reference_kronecker.rank_one(J, v, rule)))
            J = found
    return Measured(worst)


def _mezo(restore: str, steps: int) -> Measured:
    import torch

    from curvebench.methods.mezo_torch import MeZO

    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.randn(2000, generator=generator))
    before = p.detach().clone()
    method = MeZO([p], lr=1e-30, eps=1e-3, restore=restore, generator=generator)
    for _ in range(steps):
        method.step(lambda: p.square().sum())
    after = p.detach()
    if restore == "copy":
        return Measured(float((after != before).sum()))
    return Measured(float((after - before).norm() / before.norm()))


def coherent(rng: np.random.Generator, n: int = 8192, d: int = 50) -> tuple[Array, Array]:
    """A design with 2 d rows 100 times heavier than the others, and one row 1,000 e_1."""
    a = rng.standard_normal((n, d))
    a[: 2 * d] *= 100
    a[-1] = 0
    a[-1, 0] = 1000
    return a, a @ rng.standard_normal(d) + rng.standard_normal(n)


def hadamard(x: Array) -> Array:
    """The orthonormal Walsh-Hadamard transform along the first axis, of length a power of two."""
    n, step = len(x), 1
    x = x.copy()
    while step < n:
        pairs = x.reshape(n // (2 * step), 2, step, -1)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(n, -1)
        step *= 2
    return x / math.sqrt(n)


def _sketch(kind: str) -> Measured:
    """``||A x' - b|| / ||A x* - b|| - 1`` with x' from ``m`` of the (transformed) rows; lstsq gives x*."""
    rng, m, found = np.random.default_rng(0), 1000, []
    a, b = coherent(rng)
    best = float(np.linalg.norm(a @ np.linalg.lstsq(a, b, rcond=None)[0] - b))
    for _ in range(5):
        both = np.concatenate([a, b[:, None]], axis=1)
        if kind == "srht":
            both = hadamard(rng.choice([-1.0, 1.0], len(a))[:, None] * both)
        rows = both[rng.choice(len(a), m, replace=False)]
        x = np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0]
        found.append(float(np.linalg.norm(a @ x - b)) / best - 1)
    return Measured(float(np.median(found)), f"from {min(found):.3f} to {max(found):.3f}")


def _repeats() -> Measured:
    ends = []
    for _ in range(2):
        run = Run(problem("quadratic-noisy"), "sgd", lr=0.01)
        run.steps(50)
        ends.append(run.parameters()["x"])
    return Measured(float(np.sum(ends[0] != ends[1])))


def _ranking() -> Measured:
    from curvebench.statistics.stability import agreement

    taus = {}
    for name in TASKS:
        orders = []
        for block in range(3):
            row = []
            for method, lr in RANKED:
                given: dict[str, Any] = {} if lr is None else {"lr": lr}
                run = Run(problem(name, block), method, **given)
                run.steps(60)
                row.append(run.loss())
            orders.append(np.array(row))
        taus[name] = agreement(orders).tau
    return Measured(float(np.mean(list(taus.values()))), ", ".join(f"{n} {t:.2f}" for n, t in taus.items()))
