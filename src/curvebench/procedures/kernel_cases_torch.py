"""The torch kernels of :mod:`curvebench.procedures.kernel_cases`."""

from __future__ import annotations

from typing import Any

import numpy as np

from curvebench.kernels import reference_curvature as rc
from curvebench.kernels import reference_kronecker as rk
from curvebench.kernels import reference_mfac as rm
from curvebench.kernels import reference_newton as rn
from curvebench.kernels import reference_transforms as rt
from curvebench.kernels import reference_zeroth as rz
from curvebench.procedures.kernel_cases import ROWS, WINDOW, Case, Ready, normal, positive

DAMPING = 0.1


def _tensors(device: Any, *arrays: Any) -> Any:
    import torch

    found = [torch.as_tensor(a, device=device) for a in arrays]
    return found[0] if len(found) == 1 else found


def _newton(n: int, device: Any) -> Ready:
    from curvebench.kernels.newton_torch import newton_direction

    H, g = positive(n), normal(n)
    A, b = _tensors(device, H, g)
    return Ready(lambda: newton_direction(A, b, DAMPING), lambda: rn.newton_direction(H.astype(float), g, DAMPING))


def _conjugate_gradient(n: int, device: Any) -> Ready:
    from curvebench.kernels.conjugate_gradient_torch import conjugate_gradient

    H, g = positive(n), normal(n)
    A, b = _tensors(device, H, g)
    steps = 20
    return Ready(
        lambda: conjugate_gradient(lambda v: A @ v, b, b.new_zeros(n), steps=steps, tolerance=0.0).kept[-1],
        lambda: rn.conjugate_gradient(H.astype(float), g.astype(float), steps),
        lambda: [A @ b for _ in range(steps)],
    )


def _lanczos(n: int, device: Any) -> Ready:
    from curvebench.kernels.lanczos_torch import lanczos

    H, v = positive(n), normal(n)
    A, b = _tensors(device, H, v)
    steps = 8

    def reference() -> Any:
        T = rc.lanczos(H.astype(float), v.astype(float), steps)
        return np.diag(T), np.abs(np.diag(T, 1))

    def call() -> Any:
        found = lanczos(lambda x: A @ x, b, steps)
        return found.diagonal, found.off_diagonal[: steps - 1]

    return Ready(call, reference, lambda: [A @ b for _ in range(steps)])


def _hutchinson(n: int, device: Any) -> Ready:
    from curvebench.kernels.hutchinson_torch import hutchinson_diagonal

    H, Z = positive(n), np.sign(normal(8, n))
    A, probes = _tensors(device, H, Z)
    return Ready(
        lambda: hutchinson_diagonal(lambda v: A @ v, list(probes)).value,
        lambda: rc.hutchinson_diagonal(H.astype(float), Z.astype(float))[0],
        lambda: [A @ z for z in probes],
    )


def _gram(n: int, device: Any) -> Ready:
    from curvebench.kernels.kronecker_torch import input_gram

    rows = normal(ROWS, n)
    x = _tensors(device, rows)
    return Ready(
        lambda: input_gram(x, None, bias=False)[0],
        lambda: rows.astype(float).T @ rows.astype(float),
        lambda: x.T @ x,
    )


def _inverse(n: int, device: Any) -> Ready:
    from curvebench.kernels.kronecker_torch import damped_inverse

    X = positive(n)
    A = _tensors(device, X)
    return Ready(lambda: damped_inverse(A, DAMPING), lambda: np.linalg.inv(X + DAMPING * np.eye(n)))


def _solve_eigen(n: int, device: Any) -> Ready:
    import torch

    from curvebench.kernels.kronecker_torch import eigenbasis, solve_eigen

    A, G, W = positive(n), positive(n, seed=1), normal(n, n, seed=2)
    a, g, w = _tensors(device, A, G, W)
    (dA, QA), (dG, QG) = eigenbasis(a), eigenbasis(g)
    scale = torch.outer(dG, dA)
    return Ready(
        lambda: solve_eigen(w, QA, QG, scale, DAMPING),
        lambda: rk.solve(A.astype(float), G.astype(float), W.astype(float), DAMPING),
        lambda: QG @ (QG.T @ w @ QA) @ QA.T,
    )


def _mkor(n: int, device: Any) -> Ready:
    from curvebench.kernels.mkor_torch import rank_one

    J, v = positive(n), normal(n, seed=1)
    inverse, vector = _tensors(device, J, v)
    return Ready(
        lambda: rank_one(inverse, vector, "code", 0.95),
        lambda: rk.rank_one(J.astype(float), v.astype(float), "code", 0.95),
        lambda: (inverse @ vector, inverse.clone().addr_(vector, vector)),
    )


def _eva(n: int, device: Any) -> Ready:
    from curvebench.kernels.rank_one_torch import eva_direction

    W, a, g = normal(n, n), normal(n, seed=1), normal(n, seed=2)
    w, left, right = _tensors(device, W, a, g)
    return Ready(
        lambda: eva_direction(w, left, right, DAMPING),
        lambda: rt.eva_direction(W.astype(float), a.astype(float), g.astype(float), DAMPING),
        lambda: (w @ left, right),
    )


def _mfac(n: int, device: Any) -> Ready:
    from curvebench.kernels.mfac_torch import SlidingWindow

    G = normal(WINDOW + 1, n)
    rows = _tensors(device, G)
    ring: Any = SlidingWindow(WINDOW, n, DAMPING, device=device)
    for row in rows[:-1]:
        ring.push(row)
    out = rows.new_empty(n)
    # The newest row stands in place of the oldest however often it is pushed again: what it displaces is then itself.
    weights = rows.new_ones(WINDOW)
    return Ready(
        lambda: ring.update(rows[-1], out),
        None,
        lambda: (rows[:-1] @ rows[-1], rows[:-1].T @ weights),
    )


def _static(n: int, device: Any) -> Ready:
    from curvebench.kernels.mfac_static_torch import StaticInverse

    G, x = normal(WINDOW, n), normal(n, seed=1)
    rows, vector = _tensors(device, G, x)
    return Ready(lambda: StaticInverse(rows, DAMPING).ihvp(vector), lambda: rm.woodbury(G.astype(float), DAMPING, x))


def _orthogonal(n: int, device: Any) -> Ready:
    from curvebench.kernels.orthogonal_torch import orthogonal_gradient

    w, g = normal(n), normal(n, seed=1)
    weights, gradient = _tensors(device, w, g)
    return Ready(
        lambda: orthogonal_gradient(weights, gradient),
        lambda: rt.orthogonal_gradient(w.astype(float), g.astype(float)),
        lambda: weights @ gradient,
    )


def _tract(n: int, device: Any) -> Ready:
    from curvebench.kernels.first_layer_torch import tract_gradient

    x, dz = normal(ROWS, n), normal(ROWS, 16, seed=1)
    inputs, gradients = _tensors(device, x, dz)
    return Ready(
        lambda: tract_gradient(inputs, gradients, DAMPING),
        lambda: rt.tract_gradient(x.astype(float), dz.astype(float), DAMPING),
        lambda: gradients.T @ inputs,
    )


def _dct(n: int, device: Any) -> Ready:
    import torch

    from curvebench.kernels.dct_torch import dct_basis

    return Ready(lambda: dct_basis(n, torch.float32, torch.device(device)), lambda: rt.dct_basis(n))


def _stablemax(n: int, device: Any) -> Ready:
    from curvebench.kernels.stablemax_torch import stablemax_cross_entropy

    z, y = normal(ROWS, n), np.random.default_rng(1).integers(0, n, ROWS)
    logits, targets = _tensors(device, z, y)
    return Ready(
        lambda: stablemax_cross_entropy(logits, targets), lambda: rt.stablemax_cross_entropy(z.astype(float), y)
    )


def _descent(n: int, device: Any) -> Ready:
    import torch

    from curvebench.kernels.descent_torch import adam_

    p, g, m, v = (torch.as_tensor(normal(n, seed=s), device=device) for s in range(4))
    v.abs_()
    return Ready(
        lambda: adam_([p], [g], [m], [v], t=5, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
        None,
        lambda: p.clone().add_(g),
    )


def _quadratic(n: int, device: Any) -> Any:
    """``f(x) = sum_i c_i x_i^2 / 2``: its parameters in torch, its loss, and the same in NumPy."""
    import torch

    c, x = np.abs(normal(n, seed=3)), normal(n)
    scale, p = torch.as_tensor(c, device=device), torch.as_tensor(x, device=device)
    return p, lambda: 0.5 * (scale * p * p).sum(), x.astype(float), lambda at: 0.5 * float(c @ (at * at))


def _random_gradient(n: int, device: Any) -> Ready:
    import torch

    from curvebench.kernels.zeroth_torch import random_gradient

    p, loss, _, _ = _quadratic(n, device)
    u = torch.as_tensor(normal(n, seed=4), device=device)
    return Ready(
        lambda: random_gradient(loss, [p], lambda shape: u.reshape(shape), mu=1e-2, central=True).gradient[0],
        None,
        lambda: (loss(), loss()),
    )


def _coordinate(n: int, device: Any) -> Ready:
    from curvebench.kernels.zeroth_torch import coordinate_gradient

    p, loss, x, f = _quadratic(n, device)
    return Ready(
        lambda: coordinate_gradient(loss, [p], mu=1e-2, central=True).gradient[0],
        lambda: rz.coordinate_gradient(f, x, 1e-2, central=True),
        lambda: [loss() for _ in range(2 * n)],
    )


def _replay(n: int, device: Any) -> Ready:
    import torch

    from curvebench.kernels.replay_torch import visit

    p, made = torch.as_tensor(normal(n), device=device), torch.Generator(device).manual_seed(0)

    def move(_: int, view: torch.Tensor, z: torch.Tensor) -> None:
        view.add_(z, alpha=1e-6)

    return Ready(
        lambda: visit([p], lambda z: z.normal_(generator=made), move),
        None,
        lambda: torch.empty_like(p).normal_(generator=made),
    )


def _network(n: int, device: Any) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, n), nn.Tanh(), nn.Linear(n, 10)).to(device)
    return module, torch.randn(ROWS, 16, device=device), torch.randint(0, 10, (ROWS,), device=device)


def _product(n: int, device: Any, kind: str) -> Ready:
    import torch
    import torch.nn.functional as F

    from curvebench.kernels import batched_products_torch as batched
    from curvebench.kernels import products_torch as single

    module, x, y = _network(n, device)
    params = list(module.parameters())
    outputs = module(x)
    gradient = single.differentiate([F.cross_entropy(outputs, y)], params, create_graph=True)
    many = [torch.randn(4, *p.shape, device=device) for p in params]
    one = [v[0] for v in many]

    def ours() -> Any:
        if kind == "hvp":
            return single.hessian_vector_product(gradient, params, one)
        if kind == "ggnvp":
            return single.gauss_newton_vector_product(outputs, params, one, lambda o: F.cross_entropy(o, y))
        return batched.hessian_products(gradient, params, many)

    return Ready(ours, None, lambda: single.differentiate([F.cross_entropy(module(x), y)], params))


def _per_sample(n: int, device: Any) -> Ready:
    import torch.nn.functional as F
    from torch.func import functional_call

    from curvebench.kernels.per_sample_torch import per_sample_gradients
    from curvebench.kernels.products_torch import differentiate

    module, x, y = _network(n, device)
    live = {name: p.detach() for name, p in module.named_parameters()}
    return Ready(
        lambda: per_sample_gradients(lambda p, a, b: F.cross_entropy(functional_call(module, p, (a,)), b), live, x, y),
        None,
        lambda: differentiate([F.cross_entropy(module(x), y)], list(module.parameters())),
    )


def _delta(n: int, device: Any) -> Ready:
    import torch.nn.functional as F

    from curvebench.kernels.cge_torch import coordinate_gradient_delta

    module, x, y = _network(n, device)
    return Ready(lambda: coordinate_gradient_delta(module, F.cross_entropy, x, y, mu=1e-3).gradient)


CASES: dict[str, Case] = {
    f"{file}: {what}": Case(file, "torch", build, largest)
    for file, what, build, largest in (
        ("newton_torch", "direction [n, n]", _newton, 512),
        ("conjugate_gradient_torch", "20 steps [n, n]", _conjugate_gradient, 1024),
        ("lanczos_torch", "8 steps [n, n]", _lanczos, 1024),
        ("hutchinson_torch", "diagonal, 8 probes [n, n]", _hutchinson, 1024),
        ("kronecker_torch", "input gram [64, n]", _gram, 1024),
        ("kronecker_torch", "damped inverse [n, n]", _inverse, 1024),
        ("kronecker_torch", "solve in eigenbases [n, n]", _solve_eigen, 32),
        ("mkor_torch", "rank-one update [n, n]", _mkor, 1024),
        ("rank_one_torch", "Eva direction [n, n]", _eva, 32),
        ("mfac_torch", "update, m = 16, d = n", _mfac, 0),
        ("mfac_static_torch", "set-up and product, m = 16, d = n", _static, 10**6),
        ("orthogonal_torch", "d = n", _orthogonal, 10**6),
        ("first_layer_torch", "TrAct [64, n]", _tract, 1024),
        ("dct_torch", "basis [n, n]", _dct, 256),
        ("stablemax_torch", "cross-entropy [64, n]", _stablemax, 1024),
        ("descent_torch", "Adam, d = n", _descent, 0),
        ("zeroth_torch", "one direction, d = n", _random_gradient, 0),
        ("zeroth_torch", "every coordinate, d = n", _coordinate, 512),
        ("replay_torch", "one pass, d = n", _replay, 0),
        ("products_torch", "Hessian, width n", lambda n, device: _product(n, device, "hvp"), 0),
        ("products_torch", "Gauss-Newton, width n", lambda n, device: _product(n, device, "ggnvp"), 0),
        ("batched_products_torch", "4 Hessian products, width n", lambda n, device: _product(n, device, "four"), 0),
        ("per_sample_torch", "64 samples, width n", _per_sample, 0),
        ("cge_torch", "delta propagation, width n", _delta, 0),
    )
}
