"""Each baseline's library against the update rule of its paper, written down in NumPy, float64.

Gradients are given, one list of arrays for every step, so that nothing but the update is compared. Weights
``[rows, columns]`` have one null direction at most in a gradient's second moment: a degenerate eigenbasis is arbitrary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny import card, jax
from torch import nn

from curvebench.methods.resolve import load_target

Arrays = list[np.ndarray]
Rule = Callable[..., Iterator[Arrays]]
STEPS = 10


def model() -> nn.Module:
    """4x3 and 3x4 matrices with biases: the last matrix makes the outputs."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.from_numpy(rng.standard_normal(p.shape)))
    return module


def gradients() -> list[Arrays]:
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.1, 3.0, 4)
    mean = [s * rng.standard_normal(tuple(p.shape)) for s, p in zip(scales, model().parameters(), strict=True)]
    return [[m + s * rng.standard_normal(m.shape) for s, m in zip(scales, mean, strict=True)] for _ in range(STEPS)]


def start() -> Arrays:
    return [p.detach().numpy().copy() for p in model().parameters()]


def optimiser(name: str, module: nn.Module, given: dict[str, Any]) -> Any:
    shipped = card(name)
    target = load_target(shipped.implementation["torch"].target)
    first = module if getattr(target, "takes", "") == "model" else list(module.parameters())
    return target(first, **shipped.arguments("torch", shipped.resolve(given)))


def torch_steps(name: str, given: dict[str, Any]) -> Iterator[Arrays]:
    """Parameters after every step of the card's torch class."""
    module = model()
    made = optimiser(name, module, given)
    for step in gradients():
        for p, g in zip(module.parameters(), step, strict=True):
            p.grad = torch.tensor(g)
        made.step()
        yield [p.detach().numpy().copy() for p in module.parameters()]


def jax_steps(name: str, given: dict[str, Any]) -> Iterator[Arrays]:
    """Parameters after every step of the card's jax transformation."""
    import optax

    with jax.enable_x64(True):
        shipped = card(name)
        arguments = shipped.arguments("jax", shipped.resolve(given))
        transformation = load_target(shipped.implementation["jax"].target)(**arguments)
        names = [n for n, _ in model().named_parameters()]
        params = {n: jax.numpy.asarray(p) for n, p in zip(names, start(), strict=True)}
        state = transformation.init(params)
        update = jax.jit(transformation.update)
        for step in gradients():
            updates, state = update(dict(zip(names, map(jax.numpy.asarray, step), strict=True)), state, params)
            params = optax.apply_updates(params, updates)
            yield [np.asarray(params[n]) for n in names]


# -- the rules ---------------------------------------------------------------------------------------------------------


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def sgd(lr: float, momentum: float = 0.0, nesterov: bool = False) -> Iterator[Arrays]:
    p = start()
    m = [np.zeros_like(x) for x in p]
    for g in gradients():
        for i in range(len(p)):
            m[i] = momentum * m[i] + g[i]
            p[i] = p[i] - lr * (g[i] + momentum * m[i] if nesterov else m[i])
        yield p


def adam(lr: float, beta1: float, beta2: float, eps: float, weight_decay: float = 0.0) -> Iterator[Arrays]:
    p = start()
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    for t, g in enumerate(gradients(), 1):
        for i in range(len(p)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            scaled = m[i] / (1 - beta1**t) / (np.sqrt(v[i] / (1 - beta2**t)) + eps)
            p[i] = p[i] - lr * (scaled + weight_decay * p[i])
        yield p


def adagrad(lr: float, initial_accumulator: float) -> Iterator[Arrays]:
    p = start()
    s = [np.full_like(x, initial_accumulator) for x in p]
    for g in gradients():
        for i in range(len(p)):
            s[i] += g[i] ** 2
            p[i] = p[i] - lr * g[i] / np.sqrt(s[i])
        yield p


def rmsprop(lr: float, decay: float, eps: float) -> Iterator[Arrays]:
    p = start()
    s = [np.zeros_like(x) for x in p]
    for g in gradients():
        for i in range(len(p)):
            s[i] = decay * s[i] + (1 - decay) * g[i] ** 2
            p[i] = p[i] - lr * g[i] / (np.sqrt(s[i]) + eps)
        yield p


def nadam(lr: float, beta1: float, beta2: float, eps: float) -> Iterator[Arrays]:
    p = start()
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    for t, g in enumerate(gradients(), 1):
        for i in range(len(p)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            ahead = beta1 * m[i] / (1 - beta1 ** (t + 1)) + (1 - beta1) * g[i] / (1 - beta1**t)
            p[i] = p[i] - lr * ahead / (np.sqrt(v[i] / (1 - beta2**t)) + eps)
        yield p


def lion(lr: float, beta1: float, beta2: float, weight_decay: float) -> Iterator[Arrays]:
    p = start()
    m = [np.zeros_like(x) for x in p]
    for g in gradients():
        for i in range(len(p)):
            p[i] = p[i] - lr * (np.sign(beta1 * m[i] + (1 - beta1) * g[i]) + weight_decay * p[i])
            m[i] = beta2 * m[i] + (1 - beta2) * g[i]
        yield p


def lamb(lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> Iterator[Arrays]:
    p = start()
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    for t, g in enumerate(gradients(), 1):
        for i in range(len(p)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            r = m[i] / (1 - beta1**t) / (np.sqrt(v[i] / (1 - beta2**t)) + eps) + weight_decay * p[i]
            p[i] = p[i] - lr * np.linalg.norm(p[i]) / np.linalg.norm(r) * r
        yield p


def adafactor(lr: float, eps2: float, clip: float, weight_decay: float = 0.0, bounded: bool = True) -> Iterator[Arrays]:
    """Algorithms 4 and 5; the paper adds eps1 = 1e-30 to the squared gradient, where the code has a floor."""
    p = start()
    whole = [np.zeros_like(x) for x in p]
    rows, columns = [np.zeros((len(x), 1)) for x in p], [np.zeros((1, x.shape[-1])) for x in p]
    for t, g in enumerate(gradients(), 1):
        decay = 1 - t**-0.8
        for i in range(len(p)):
            square = g[i] ** 2 + 1e-30
            if p[i].ndim == 2:
                rows[i] = decay * rows[i] + (1 - decay) * square.sum(1, keepdims=True)
                columns[i] = decay * columns[i] + (1 - decay) * square.sum(0, keepdims=True)
                v = rows[i] @ columns[i] / rows[i].sum()
            else:
                whole[i] = decay * whole[i] + (1 - decay) * square
                v = whole[i]
            u = g[i] / np.sqrt(v)
            u = u / max(1.0, rms(u) / clip)
            size = max(eps2, rms(p[i])) * (min(lr, t**-0.5) if bounded else lr)
            p[i] = (1 - lr * weight_decay) * p[i] - size * u
        yield p


def prodigy(lr: float, beta1: float, beta2: float, eps: float, d0: float, d_coef: float,
            weight_decay: float) -> Iterator[Arrays]:  # fmt: skip
    """Algorithm 4 of the paper with Adam's bias correction, as the authors' code has it."""
    p, first = start(), start()
    m, v, s = ([np.zeros_like(x) for x in p] for _ in range(3))
    d, r = d0, 0.0
    for t, g in enumerate(gradients(), 1):
        step = lr * d * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        r = math.sqrt(beta2) * r + d / d0 * step * sum(
            float(np.vdot(a, b - c)) for a, b, c in zip(g, first, p, strict=True)
        )
        for i in range(len(p)):
            m[i] = beta1 * m[i] + (1 - beta1) * d * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * (d * g[i]) ** 2
            s[i] = math.sqrt(beta2) * s[i] + d / d0 * step * g[i]
        d = max(d, d_coef * r / sum(float(np.abs(x).sum()) for x in s))
        assert d > d0 or t < 5, "the estimate grows"
        p = [(1 - step * weight_decay) * x - step * a / (np.sqrt(b) + d * eps) for x, a, b in zip(p, m, v, strict=True)]
        yield p


def schedule_free(lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> Iterator[Arrays]:
    """The point y where gradients are taken; the average x is compared in a test of its own."""
    y, z, x = start(), start(), start()
    v = [np.zeros_like(a) for a in y]
    for t, g in enumerate(gradients(), 1):
        for i in range(len(y)):
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            z[i] = z[i] - lr * (g[i] / (np.sqrt(v[i] / (1 - beta2**t)) + eps) + weight_decay * y[i])
            x[i] = (1 - 1 / t) * x[i] + z[i] / t
            y[i] = (1 - beta1) * z[i] + beta1 * x[i]
        yield y


def soap(lr: float, beta1: float, beta2: float, shampoo_beta: float, eps: float, weight_decay: float,
         basis_every: int) -> Iterator[Arrays]:  # fmt: skip
    """Algorithm 3 with the official code's order: the first step only begins the factors."""
    p = start()
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    factors: list[Any] = [None] * len(p)
    bases: list[Any] = [None] * len(p)
    for t, g in enumerate(gradients()):
        for i in range(len(p)):
            matrix = p[i].ndim == 2
            if t == 0:
                if matrix:
                    factors[i] = [(1 - shampoo_beta) * g[i] @ g[i].T, (1 - shampoo_beta) * g[i].T @ g[i]]
                    bases[i] = [np.linalg.eigh(f)[1][:, ::-1] for f in factors[i]]
                continue
            left, right = bases[i] if matrix else (np.eye(1), np.eye(1))

            def to(a: np.ndarray, matrix: bool = matrix, left: Any = left, right: Any = right) -> np.ndarray:
                return left.T @ a @ right if matrix else a

            def back(a: np.ndarray, matrix: bool = matrix, left: Any = left, right: Any = right) -> np.ndarray:
                return left @ a @ right.T if matrix else a

            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * to(g[i]) ** 2
            step = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
            p[i] = (1 - lr * weight_decay) * (p[i] - step * back(to(m[i]) / (np.sqrt(v[i]) + eps)))
            if matrix:
                new = (g[i] @ g[i].T, g[i].T @ g[i])
                factors[i] = [shampoo_beta * f + (1 - shampoo_beta) * n for f, n in zip(factors[i], new, strict=True)]
                if t % basis_every == 0:
                    for side, (f, q) in enumerate(zip(factors[i], bases[i], strict=True)):
                        order = np.argsort(-np.diag(q.T @ f @ q))
                        v[i] = np.take(v[i], order, axis=side)
                        bases[i][side] = np.linalg.qr(f @ q[:, order])[0]
        yield p


def inverse_root(a: np.ndarray, power: int) -> np.ndarray:
    values, vectors = np.linalg.eigh(a)
    return vectors @ np.diag(values ** (-1 / power)) @ vectors.T


def shampoo(lr: float, beta1: float, beta2: float, matrix_eps: float, weight_decay: float,
            root_every: int) -> Iterator[Arrays]:  # fmt: skip
    """Algorithm 1 with averages for sums, roots every so many steps, and the gradient's length."""
    p = start()
    m, plain = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    moments = [[matrix_eps * np.eye(n) for n in x.shape] for x in p]
    roots = [[np.eye(n) for n in x.shape] for x in p]
    for t, g in enumerate(gradients(), 1):
        for i in range(len(p)):
            direction = g[i]
            if p[i].ndim == 2:
                for side, outer in enumerate((g[i] @ g[i].T, g[i].T @ g[i])):
                    moments[i][side] = beta2 * moments[i][side] + (1 - beta2) * outer
                    if t % root_every == 0:
                        roots[i][side] = inverse_root(moments[i][side], 4)
                direction = roots[i][0] @ g[i] @ roots[i][1]
                direction = direction * np.linalg.norm(g[i]) / np.linalg.norm(direction)
            m[i], plain[i] = beta1 * m[i] + direction, beta1 * plain[i] + g[i]
            p[i] = (1 - lr * weight_decay) * p[i] - lr * (m[i] if t >= root_every else plain[i])
        yield p


def newton_schulz(a: np.ndarray, steps: int) -> np.ndarray:
    if a.shape[0] > a.shape[1]:
        return newton_schulz(a.T, steps).T
    x = a / np.linalg.norm(a)
    for _ in range(steps):
        b = x @ x.T
        x = 3.4445 * x + (-4.7750 * b + 2.0315 * b @ b) @ x
    return x


def muon(lr: float, momentum: float, weight_decay: float, ns_steps: int, adamw_lr: float, adamw_beta1: float,
         adamw_beta2: float, adamw_eps: float, adamw_weight_decay: float,
         corrected: bool = False) -> Iterator[Arrays]:  # fmt: skip
    """The first matrix is Muon's, the biases and the last matrix are AdamW's; optax corrects the look-ahead's bias."""
    p = start()
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    for t, g in enumerate(gradients(), 1):
        for i in range(len(p)):
            if i == 0:
                m[i] = momentum * m[i] + (1 - momentum) * g[i]
                scales = (1 - momentum ** (t + 1), 1 - momentum**t) if corrected else (1, 1)
                ahead = momentum * m[i] / scales[0] + (1 - momentum) * g[i] / scales[1]
                wide = math.sqrt(max(1, len(g[i]) / len(g[i].T)))
                p[i] = (1 - lr * weight_decay) * p[i] - lr * wide * newton_schulz(ahead, ns_steps)
            else:
                m[i] = adamw_beta1 * m[i] + (1 - adamw_beta1) * g[i]
                v[i] = adamw_beta2 * v[i] + (1 - adamw_beta2) * g[i] ** 2
                u = m[i] / (1 - adamw_beta1**t) / (np.sqrt(v[i] / (1 - adamw_beta2**t)) + adamw_eps)
                p[i] = (1 - adamw_lr * adamw_weight_decay) * p[i] - adamw_lr * u
        yield p


MUON = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.2, "ns_steps": 4, "adamw_lr": 0.05, "adamw_beta1": 0.7,
        "adamw_beta2": 0.8, "adamw_eps": 1e-3, "adamw_weight_decay": 0.1}  # fmt: skip
CASES: list[tuple[str, str, Rule, dict[str, Any], float]] = [
    ("sgd", "torch", sgd, {"lr": 0.1}, 1e-12),
    ("momentum", "torch", sgd, {"lr": 0.1, "momentum": 0.7}, 1e-12),
    ("nesterov", "torch", lambda **more: sgd(**more, nesterov=True), {"lr": 0.1, "momentum": 0.7}, 1e-12),
    ("adam", "torch", adam, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3}, 1e-12),
    ("adamw", "torch", adam, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3, "weight_decay": 0.3}, 1e-12),
    ("adagrad", "torch", adagrad, {"lr": 0.1, "initial_accumulator": 1e-2}, 1e-12),
    ("rmsprop", "torch", rmsprop, {"lr": 0.05, "decay": 0.8, "eps": 1e-3}, 1e-12),
    ("nadam", "torch", nadam, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3}, 1e-12),
    ("lion", "torch", lion, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "weight_decay": 0.3}, 1e-12),
    ("lamb", "torch", lamb, {"lr": 0.1, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3, "weight_decay": 0.3}, 1e-12),
    ("adafactor", "torch", adafactor, {"lr": 0.5, "eps2": 1e-2, "clip": 1.2, "weight_decay": 0.1}, 1e-12),
    ("prodigy", "torch", prodigy, {"lr": 0.8, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3, "d0": 1e-2, "d_coef": 30.0,
                                   "weight_decay": 0.2}, 1e-12),
    ("schedule-free", "torch", schedule_free, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "eps": 1e-3,
                                               "weight_decay": 0.3}, 1e-12),
    ("soap", "torch", soap, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "shampoo_beta": 0.6, "eps": 1e-3,
                             "weight_decay": 0.2, "basis_every": 3}, 1e-5),  # its QR is in float32
    ("shampoo", "torch", shampoo, {"lr": 0.05, "beta1": 0.7, "beta2": 0.8, "matrix_eps": 1e-3, "weight_decay": 0.2,
                                   "root_every": 3}, 1e-10),
    ("muon", "torch", muon, MUON, 2e-2),  # its iteration is in bfloat16
    ("muon", "jax", lambda **more: muon(**more, corrected=True), MUON, 1e-6),  # 1e-7 is added to the norm
    ("adafactor", "jax", lambda **more: adafactor(**more, eps2=1e-3, bounded=False), {"lr": 0.5, "clip": 1.2},
     1e-7),  # t^-0.8 is computed in float32
]  # fmt: skip


@pytest.mark.parametrize(("name", "framework", "rule", "given", "tolerance"), CASES,
                         ids=[f"{c[0]}-{c[1]}" for c in CASES])  # fmt: skip
def test_the_library_takes_the_papers_steps(
    name: str, framework: str, rule: Rule, given: dict[str, Any], tolerance: float
) -> None:
    taken = {"torch": torch_steps, "jax": jax_steps}[framework](name, given)
    for t, (seen, wanted) in enumerate(zip(taken, rule(**given), strict=True), 1):
        for a, b in zip(seen, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()), err_msg=f"step {t}")
    assert max(np.abs(a - b).max() for a, b in zip(seen, start(), strict=True)) > 0.05, "they went somewhere"


def test_muon_leaves_everything_but_hidden_matrices_to_adamw_bit_for_bit() -> None:
    seen = list(torch_steps("muon", MUON))[-1]
    module = model()
    adamw = torch.optim.AdamW(list(module.parameters())[1:], 0.05, (0.7, 0.8), 1e-3, 0.1)
    for step in gradients():
        for p, g in zip(module.parameters(), step, strict=True):
            p.grad = torch.tensor(g)
        adamw.step()
    for a, p in list(zip(seen, module.parameters(), strict=True))[1:]:
        assert np.array_equal(a, p.detach().numpy())


def test_muons_frameworks_are_no_twins() -> None:
    """How far the iteration in bfloat16, and optax's correction of the look-ahead, are from the plain rule."""
    given = {**MUON, "momentum": 0.95, "weight_decay": 0.0, "ns_steps": 5}
    plain, corrected = (list(muon(**given, corrected=c))[-1][0] for c in (False, True))
    seen = list(torch_steps("muon", given))[-1][0]
    moved = np.linalg.norm(plain - start()[0])
    assert 1e-3 < np.linalg.norm(seen - plain) / moved < 2e-2
    assert 1e-2 < np.linalg.norm(corrected - plain) / moved < 1e-1


# -- why a class of ours: the libraries' own, which these tests watch --------------------------------------------------


def path(make: Callable[[list[torch.Tensor]], Any], restart: int | None = None) -> list[np.ndarray]:
    """All parameters after every step ``[steps, d]`` of an optimiser, begun again from its state once."""
    module = model()
    made, out = make(list(module.parameters())), []
    for t, step in enumerate(gradients()):
        if t == restart:
            state = made.state_dict()
            made = make(list(module.parameters()))
            made.load_state_dict(state)
        for p, g in zip(module.parameters(), step, strict=True):
            p.grad = torch.tensor(g)
        made.step()
        out.append(np.concatenate([p.detach().numpy().reshape(-1) for p in module.parameters()]))
    return out


def flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([a.reshape(-1) for a in arrays])


def test_the_librarys_lamb_takes_a_first_step_ten_times_as_long() -> None:
    import pytorch_optimizer

    theirs = path(lambda p: pytorch_optimizer.Lamb(p, lr=0.01, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0))[0]
    ours = flat(next(lamb(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0)))
    assert np.linalg.norm(theirs - flat(start())) == pytest.approx(10 * np.linalg.norm(ours - flat(start())), rel=1e-4)


def test_torchs_nadam_is_of_single_precision_and_forgets_bits_at_a_restart() -> None:
    from curvebench.methods.nadam_torch import NAdam

    def theirs(p: list[torch.Tensor]) -> Any:
        return torch.optim.NAdam(p, lr=0.05, momentum_decay=1e6)

    def ours(p: list[torch.Tensor]) -> Any:
        return NAdam(p, lr=0.05)

    first = flat(next(nadam(lr=0.05, beta1=0.9, beta2=0.999, eps=1e-8)))
    assert 1e-8 < np.abs(path(theirs)[0] - first).max() < 1e-6
    assert np.abs(path(ours)[0] - first).max() < 1e-15
    assert not np.array_equal(path(theirs, restart=5)[-1], path(theirs)[-1])
    assert np.array_equal(path(ours, restart=5)[-1], path(ours)[-1])


def test_the_librarys_prodigy_sums_in_single_precision() -> None:
    import pytorch_optimizer

    wanted = [flat(list(p)) for p in prodigy(lr=1.0, beta1=0.9, beta2=0.999, eps=1e-8, d0=1e-2, d_coef=30.0,
                                             weight_decay=0.0)]  # fmt: skip
    theirs = path(lambda p: pytorch_optimizer.Prodigy(p, d0=1e-2, d_coef=30.0, bias_correction=True))
    assert 1e-10 < np.abs(theirs[-1] - wanted[-1]).max() < 1e-4


@pytest.mark.parametrize("use_svd", [True, False])
def test_shampoos_newton_iteration_draws_from_the_global_generator(use_svd: bool) -> None:
    import pytorch_optimizer

    module, step = model(), gradients()[0]
    optimizer = pytorch_optimizer.ScalableShampoo(
        module.parameters(), preconditioning_compute_steps=1, shape_interpretation=False, use_svd=use_svd
    )
    for p, g in zip(module.parameters(), step, strict=True):
        p.grad = torch.tensor(g)
    before = torch.get_rng_state()
    optimizer.step()
    assert torch.equal(torch.get_rng_state(), before) == use_svd
