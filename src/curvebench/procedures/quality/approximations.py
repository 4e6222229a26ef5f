"""The approximations, each by the shipped method that uses it, asked at one point without moving.

A builder lets the method fold statistics of the point into its state, as in training but with a step size of zero, and
reads the matrix C off that state. Where the method's damping is ``lam I``, its own direction is ``(C + lam I)^-1 g``
(tested); MKOR has another damping, so its own direction is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from curvebench import cards
from curvebench.kernels.newton_torch import newton_direction
from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.eva_torch import Eva
from curvebench.methods.kfac_torch import KFAC
from curvebench.methods.mfac_torch import MFAC
from curvebench.methods.mkor_torch import MKOR
from curvebench.methods.preconditioner_torch import LayerPreconditioner
from curvebench.methods.resolve import load_target
from curvebench.oracle.dense_torch import diagonal
from curvebench.procedures.quality.site import Site, array
from curvebench.spec import Query, Scalar
from curvebench.types import FloatArray

WINDOW = 64
"""Gradients in M-FAC's window, and statistics steps of MKOR and of AdaHessian."""
BATCH = 32
"""Samples of a mini-batch of those that average over mini-batches."""


SAMPLES = 256
"""Single-sample gradients of Shampoo's statistics, at most."""


class Built(NamedTuple):
    """C ``[d, d]``, and the method's own direction where its damping is not ``lam I``."""

    matrix: FloatArray
    direction: FloatArray | None = None


class Given(NamedTuple):
    """What the truth has shown already: both matrices, and the damping."""

    ggn: FloatArray
    hessian: FloatArray
    damping: float


@dataclass(frozen=True)
class Approximation:
    """One approximation of the curvature.

    Args:
        name: in files and on the command line.
        title: in tables.
        about: how it is built, one clause.
        needs: what it asks of the oracle beside the gradient.
        build: makes it.
        method: the card whose runs use it, for the join with end-task speed; None if no method does.
        options: hyperparameters by which such runs are told from others of the same method.
    """

    name: str
    title: str
    about: str
    needs: tuple[Query, ...]
    build: Callable[[Site, Given], Built]
    method: str | None = None
    options: Mapping[str, Scalar] = field(default_factory=dict)


def approximations() -> list[Approximation]:
    """All of them, in the order of tables."""
    statistics, per_sample, ggn, hvp = (
        (Query.LAYER_STATISTICS,), (Query.PER_SAMPLE_GRADIENT,), (Query.GGNVP,), (Query.HVP,),
    )  # fmt: skip
    fishers = {"type-2": "type-2", "mc": "one sample", "empirical": "empirical"}
    return [
        Approximation("identity", "identity", "times tr F / d of the Gauss-Newton matrix", ggn, _identity, "sgd"),
        Approximation("diagonal", "diagonal", "of the Gauss-Newton matrix, exact", ggn, _diagonal),
        Approximation("diagonal-hessian", "diagonal of H", "absolute values, exact, as in diagonal Newton", hvp,
                      _diagonal_hessian, "diagonal-newton", {"curvature": "absolute"}),
        Approximation("adahessian", "AdaHessian", f"root of the mean square of {WINDOW} probes |H z|", hvp,
                      _adahessian, "adahessian"),
        Approximation("block-diagonal", "block-diagonal", "the Gauss-Newton matrix inside each layer", ggn, _blocks),
        *(Approximation(f"kfac-{fisher}", f"K-FAC, {word}", "factors of the whole training set", statistics,
                        _kfac(fisher), "kfac", {"fisher": fisher}) for fisher, word in fishers.items()),
        *(Approximation(f"ekfac-{fisher}", f"EKFAC, {word}", "factors of the whole training set", statistics,
                        _kfac(fisher, EKFAC), "ekfac", {"fisher": fisher}) for fisher, word in fishers.items()),
        Approximation("eva", "Eva", "mean input and mean output gradient of the whole training set", statistics, _eva,
                      "eva"),
        Approximation("mkor", "MKOR", f"{WINDOW} updates from mini-batches of {BATCH}, its own damping", statistics,
                      _mkor, "mkor"),
        Approximation("shampoo", "Shampoo", f"{SAMPLES} single-sample gradients; vectors, which the library leaves "
                      "alone, a multiple of the identity", (), _shampoo, "shampoo"),
        Approximation("empirical-fisher", "empirical Fisher", "all per-sample gradients", per_sample, _empirical),
        Approximation("mfac", f"M-FAC, {WINDOW} samples", f"the last {WINDOW} single-sample gradients", (),
                      _mfac(1)),
        Approximation("mfac-batch", f"M-FAC, {WINDOW} batches", f"the last {WINDOW} gradients of mini-batches of "
                      f"{BATCH}", (), _mfac(BATCH), "mfac"),
        Approximation("gauss-newton", "Gauss-Newton", "the whole matrix", ggn, lambda _, given: Built(given.ggn),
                      "levenberg-marquardt"),
        Approximation("absolute-hessian", "absolute Hessian", "H with the absolute values of its eigenvalues", hvp,
                      _absolute, "newton", {"curvature": "absolute"}),
    ]  # fmt: skip


def _identity(site: Site, given: Given) -> Built:
    return Built(float(np.trace(given.ggn)) / site.d * np.eye(site.d))


def _diagonal(site: Site, given: Given) -> Built:
    return Built(np.diag(array(diagonal(site.oracle.at(needs=(Query.GGNVP,)).ggnvps, site.parameters))))


def _diagonal_hessian(site: Site, given: Given) -> Built:
    point = site.oracle.at(needs=(Query.GRADIENT, Query.HVP))
    return Built(np.diag(np.abs(array(diagonal(point.hvps, site.parameters)))))


def _blocks(site: Site, given: Given) -> Built:
    matrix = np.zeros_like(given.ggn)
    for part in site.layers():
        matrix[part, part] = given.ggn[part, part]
    return Built(matrix)


def _adahessian(site: Site, given: Given) -> Built:
    method = AdaHessian(site.parameters, lr=0.0)
    method.oracle = site.oracle
    for step in range(WINDOW):
        site.oracle.begin_step(step, site.batch)
        method.step()
    (group,) = method.param_groups
    states = [method.state[p] for p in site.parameters]
    return Built(np.diag(array([(s["v"] / (1 - group["betas"][1] ** s["hessians"])).sqrt() for s in states])))


def _kfac(fisher: str, kind: type[KFAC] = KFAC) -> Callable[[Site, Given], Built]:
    def build(site: Site, given: Given) -> Built:
        method = kind(site.task.objective.module, base=_still(site), damping=given.damping, fisher=fisher)
        _precondition(method, site)
        return Built(_layered(method, site, lambda name: kronecker(method, name)))

    return build


def kronecker(method: KFAC, name: str) -> FloatArray:
    """``G kron A``, or EKFAC's ``(QG kron QA) diag(S) (QG kron QA)'``, of a layer: ``[o i, o i]``."""
    if isinstance(method, EKFAC):
        state = method.layer_state[name]
        basis = np.kron(array(state["QG"]), array(state["QA"]))
        scaled: FloatArray = (basis * array(method.scaling(name)).reshape(-1)) @ basis.T
        return scaled
    A, G = method.factors(name)
    return np.kron(array(G), array(A))


def _eva(site: Site, given: Given) -> Built:
    method = Eva(site.task.objective.module, base=_still(site), damping=given.damping, kl_clip=0.0)
    _precondition(method, site)

    def block(name: str) -> FloatArray:
        a, g = (array(v) for v in method.factors(name))
        vector = np.kron(g, a)
        return np.outer(vector, vector)

    return Built(_layered(method, site, block))


def _mkor(site: Site, given: Given) -> Built:
    method = MKOR(site.task.objective.module, base=_still(site), inverse_every=1)
    method.oracle = site.oracle
    for _ in site.batches(WINDOW, BATCH):
        method.precondition()
    method.inverse_every = WINDOW + 1  # the whole gradient is preconditioned, not learned from
    method.precondition()

    def block(name: str) -> FloatArray:
        JA, JG = (np.linalg.inv(array(J)) for J in method.factors(name))
        return np.kron(JG, JA)

    return Built(_layered(method, site, block), array([_of(p.grad, p) for p in site.parameters]))


def _mfac(size: int) -> Callable[[Site, Given], Built]:
    def build(site: Site, given: Given) -> Built:
        method = MFAC(site.parameters, lr=0.0, window=WINDOW, damping=given.damping)
        method.oracle = site.oracle
        for _ in site.batches(WINDOW, size):
            method.step()
        G = array(method.state[site.parameters[0]]["gradients"])
        return Built(G.T @ G / WINDOW)

    return build


def _empirical(site: Site, given: Given) -> Built:
    rows = site.oracle.at(needs=(Query.PER_SAMPLE_GRADIENT,)).per_sample_gradient()
    G = array(torch.cat([g.reshape(len(g), -1) for g in rows], 1))
    return Built(G.T @ G / len(G))


def _shampoo(site: Site, given: Given) -> Built:
    """``L kron R / tr L`` of the library's averaged statistics, one step of the best Kronecker fit of E[g g'].

    Vectors have no statistics there and take plain gradient steps: they get a multiple of the identity.
    """
    card, count = cards.method("shampoo"), min(len(site.batch[1]), SAMPLES)
    arguments = card.arguments("torch", card.resolve({"beta2": 0.9999, "matrix_eps": 1e-12, "root_every": 10**9}))
    method = load_target(card.implementation["torch"].target)(site.parameters, **arguments)
    method.param_groups[0]["lr"] = 0.0
    for _ in site.batches(count, 1):
        gradients = site.oracle.at(needs=(Query.GRADIENT,)).gradient()
        for live, g in zip(site.oracle.parameters, gradients, strict=True):
            live.grad = g
        method.step()
    weight = 1 - 0.9999**count
    matrix, plain = np.zeros((site.d, site.d)), np.ones(site.d, bool)
    for p in site.parameters:
        factors = [array(statistic) / weight for statistic in method.state[p]["pre_conditioner"].statistics]
        if factors and float(np.trace(factors[0])) > 0:
            block = factors[0]
            for factor in factors[1:]:
                block = np.kron(block, factor) / np.trace(factors[0])
            rows = site.place(p).reshape(-1)
            matrix[np.ix_(rows, rows)] = block
            plain[rows] = False
    if plain.any() and not plain.all():
        matrix[plain, plain] = np.trace(matrix) / (~plain).sum()
    return Built(matrix)


def _absolute(site: Site, given: Given) -> Built:
    values, vectors = np.linalg.eigh(given.hessian)
    g = torch.from_numpy(site.gradient)
    x = newton_direction(torch.from_numpy(given.hessian), g, given.damping, "absolute")
    return Built((vectors * np.abs(values)) @ vectors.T, None if x is None else array(x))


def _still(site: Site) -> torch.optim.Optimizer:
    """A base optimiser for a preconditioner that is never stepped."""
    return torch.optim.SGD(site.parameters, lr=1.0)


def _precondition(method: LayerPreconditioner, site: Site) -> None:
    method.oracle = site.oracle
    method.precondition()


def _layered(method: LayerPreconditioner, site: Site, block: Callable[[str], FloatArray]) -> FloatArray:
    """The matrix of all parameters from ``[o i, o i]`` of each layer, i counting the bias last; zero elsewhere."""
    matrix = np.zeros((site.d, site.d))
    for layer in method.layers:
        places = site.place(layer.weight).reshape(len(layer.weight), -1)
        if layer.bias is not None:
            places = np.concatenate([places, site.place(layer.bias)[:, None]], axis=1)
        rows = places.reshape(-1)
        matrix[np.ix_(rows, rows)] = block(layer.name)
    return matrix


def _of(gradient: Any, parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient
