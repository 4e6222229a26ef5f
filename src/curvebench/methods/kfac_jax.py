"""K-FAC as an optax transformation; the update is that of :mod:`curvebench.methods.kfac_torch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.errors import HyperparameterError
from curvebench.kernels import kronecker_jax as K
from curvebench.kernels.mkor_jax import working
from curvebench.methods.layerwise_jax import LayerState, LayerwiseState, Rule, base_of, chosen, transformation
from curvebench.methods.validation import check, whole
from curvebench.oracle.capture_jax import FisherStatistics, LayerStatistics
from curvebench.oracle.layers_jax import Layer, Layers


def kfac(
    layers: Layers,
    learning_rate: float | None = None,
    *,
    base: optax.GradientTransformation | None = None,
    momentum: float | None = None,
    damping: float = 1e-3,
    factor_decay: float = 0.95,
    factor_every: int = 1,
    inverse_every: int = 10,
    kl_clip: float | None = None,
    solve: str = "eigen",
    fisher: str = "empirical",
    loss_reduction: str = "mean",
    convention: str = "ggn",
    pi: bool = True,
    loss_terms: str = "samples",
    shared: str = "refuse",
    skip: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """K-FAC; ``update(None, state, params, oracle=...)`` asks the oracle for the gradient and layer statistics.

    Args:
        layers: what :func:`curvebench.jax.find_layers` found in the model.
        learning_rate: step size of the SGD that is built without ``base``, >= 0.
        base: any optax transformation of all parameters, without ``kl_clip``, which has to know the step size.
        momentum: of that SGD, in [0, 1).
        damping: as in torch, like all that follow.
        factor_decay: decay of the averaged factors, in [0, 1).
        factor_every: steps between two updates of the factors.
        inverse_every: steps between two eigendecompositions or inversions.
        kl_clip: the step is shortened so that ``|sum <P, W>| lr^2`` is at most this; None or 0: never.
        solve: ``'eigen'`` or ``'inverse'``.
        fisher: ``'empirical'``, ``'mc'`` or ``'type-2'``; the oracle draws the targets and pulls them back.
        loss_reduction: of the loss over the batch: ``'mean'`` or ``'sum'``.
        convention: ``'ggn'`` or ``'kfac-pytorch'``.
        pi: with ``solve='inverse'`` and ``convention='ggn'``: split the damping by the factors' traces.
        loss_terms: what the mean loss is a mean over: ``'samples'`` or ``'rows'``.
        shared: layers used several times in one forward: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: no supported layer, or one that is used twice.
    """
    kept = chosen("kfac", layers, skip, shared, loss_reduction)
    taken = base_of("kfac", base, learning_rate, momentum)
    settings = Settings.checked(
        "kfac", rate=learning_rate, damping=damping, factor_decay=factor_decay, factor_every=factor_every,
        inverse_every=inverse_every, kl_clip=kl_clip, solve=solve, fisher=fisher, loss_reduction=loss_reduction,
        convention=convention, pi=pi, loss_terms=loss_terms,
    )  # fmt: skip
    return transformation(kept, taken, kfac_rule(kept, settings), fisher)


class Settings(NamedTuple):
    """K-FAC's arguments, checked; named as there, ``rate`` is the step size."""

    rate: float | None
    damping: float
    factor_decay: float
    factor_every: int
    inverse_every: int
    kl_clip: float | None
    solve: str
    fisher: str
    loss_reduction: str
    convention: str
    pi: bool
    loss_terms: str

    @classmethod
    def checked(cls, method: str, **given: Any) -> Settings:
        """Settings.

        Raises:
            HyperparameterError: a value outside its range, or ``kl_clip`` without a step size.
        """
        check(method, "damping", given["damping"], "(0, inf)")
        check(method, "factor_decay", given["factor_decay"], "[0, 1)")
        for every in ("factor_every", "inverse_every"):
            given[every] = whole(method, every, given[every], "[1, inf)")
        if given["kl_clip"] is not None:
            check(method, "kl_clip", given["kl_clip"], "[0, inf)")
        if given["kl_clip"] and given["rate"] is None:
            raise HyperparameterError(
                f"{method}: kl_clip = {given['kl_clip']}: the bound needs the step size, which a base keeps to itself: "
                "pass lr instead of base, or kl_clip=None"
            )
        check(method, "solve", given["solve"], ("eigen", "inverse"))
        check(method, "fisher", given["fisher"], K.FISHERS)
        check(method, "convention", given["convention"], ("ggn", "kfac-pytorch"))
        check(method, "loss_terms", given["loss_terms"], ("samples", "rows"))
        return cls(**given)


class Seen(NamedTuple):
    """A layer's statistics, laid out as in torch.

    ``inputs[e]``: input of the e-th use; ``columns[e]``: ``[K, *output]``; ``terms``: of the loss, if they are of
    single terms; ``rows``, ``samples``: of all uses, and of one.
    """

    inputs: list[Array]
    columns: list[Array]
    terms: Array | None
    rows: int
    samples: int

    @classmethod
    def of(cls, layer: Layer, found: LayerStatistics | FisherStatistics) -> Seen:
        """Statistics in at least float32, with their dimension ``N``."""
        dtype, geo = working(layer.dtype), layer.geometry
        terms = None
        if isinstance(found, FisherStatistics):
            terms, stacked = found.terms, found.columns
        else:
            stacked = tuple(g[None] for g in found.output_gradients)
        inputs = [K.batched(layer.inputs(x).astype(dtype), geo) for x in found.inputs]
        columns = [jax.vmap(lambda g: K.batched(layer.outputs(g), geo))(g.astype(dtype)) for g in stacked]
        rows = sum(_positions(g[0], geo) * len(g[0]) for g in columns)
        return cls(inputs, columns, terms, rows, len(inputs[0]))


def _positions(g: Array, geo: Any) -> int:
    return g[0].size // g.shape[-1 if geo is None else 1]


FOLDED = ("A", "G", "weight", "S")
"""What statistics change; a decomposition that is not finite is not kept where it is made."""


def chosen_by(finite: Array, new: LayerState, old: LayerState) -> LayerState:
    """``new`` where ``finite``, else ``old``."""
    found: LayerState = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    return found


def kfac_rule(layers: Sequence[Layer], settings: Settings, moments: Callable[..., LayerState] | None = None) -> Rule:
    """K-FAC's part of a step.

    Args:
        layers: what is preconditioned.
        settings: checked.
        moments: folds EKFAC's second moments in after the bases, ``(arrays, statistics by layer) -> arrays``.
    """
    s, scaled = settings, moments is not None

    def init(layer: Layer) -> dict[str, Array]:
        (i, o), dtype = layer.sides, working(layer.dtype)
        start = jnp.eye if s.convention == "kfac-pytorch" else lambda n, dtype: jnp.zeros((n, n), dtype)
        arrays = {"A": start(i, dtype=dtype), "G": start(o, dtype=dtype), "weight": jnp.zeros((), dtype)}
        if s.solve == "inverse":
            return arrays | {"iA": jnp.eye(i, dtype=dtype), "iG": jnp.eye(o, dtype=dtype)}
        arrays |= {"QA": jnp.eye(i, dtype=dtype), "QG": jnp.eye(o, dtype=dtype),
                   "dA": jnp.ones(i, dtype), "dG": jnp.ones(o, dtype)}  # fmt: skip
        return arrays | ({"S": start_scaling(o, i, dtype)} if scaled else {})

    def start_scaling(o: int, i: int, dtype: Any) -> Array:
        # the identity that the library's factors start from has unit second moments
        return jnp.ones((o, i), dtype) if s.convention == "kfac-pytorch" else jnp.zeros((o, i), dtype)

    def averaged(old: dict[str, Array], A: Array, G: Array) -> dict[str, Array]:
        if s.convention == "ggn":
            weight = s.factor_decay * old["weight"] + 1
            return {**old, "A": old["A"] + (A - old["A"]) / weight, "G": old["G"] + (G - old["G"]) / weight,
                    "weight": weight}  # fmt: skip
        keep = s.factor_decay
        return {**old, "A": keep * old["A"] + (1 - keep) * A, "G": keep * old["G"] + (1 - keep) * G,
                "weight": jnp.ones_like(old["weight"])}  # fmt: skip

    def decomposed(old: dict[str, Array]) -> dict[str, Array]:
        A, G = old["A"], old["G"]
        if s.solve == "eigen":
            (dA, QA), (dG, QG) = K.eigenbasis(A), K.eigenbasis(G)
            new = {**old, "QA": QA, "QG": QG, "dA": dA, "dG": dG}
            return new | ({"S": K.transported(old["S"], old["QA"], old["QG"], QA, QG)} if scaled else {})
        if s.convention == "kfac-pytorch":
            return {**old, "iA": K.damped_inverse(A, s.damping), "iG": K.damped_inverse(G, s.damping)}
        root = s.damping**0.5
        split = K.pi(A, G) if s.pi else jnp.ones_like(A[0, 0])
        return {**old, "iA": K.damped_inverse(A, root * split), "iG": K.damped_inverse(G, root / split)}

    def statistics(point: Any) -> dict[str, Seen]:
        found = point.layer_statistics(s.fisher)
        return {layer.name: Seen.of(layer, found[layer.name]) for layer in layers}

    def curvature(oracle: Any, point: Any, state: LayerwiseState) -> tuple[LayerState, Array, Any]:
        unseen = next(iter(state.layers.values()))["weight"] == 0
        # Step 0 may have been skipped: then the first statistics come later, and the first bases with them.
        due = (state.step % s.inverse_every == 0) | unseen

        def decompose(arrays: LayerState) -> tuple[LayerState, Array]:
            oracle.tally(inverses=2 * len(layers))
            fresh = {name: {**entry, **decomposed(entry)} for name, entry in arrays.items()}
            finite = finite_bases(fresh)
            return chosen_by(finite, fresh, arrays), finite

        def keep(arrays: LayerState) -> tuple[LayerState, Array]:
            return arrays, jnp.asarray(True)

        def solve(arrays: LayerState, finite: Array) -> tuple[LayerState, Array]:
            if s.inverse_every == 1:
                arrays, solved = oracle.cond(finite, decompose, keep, arrays)
            else:
                arrays, solved = oracle.cond(due & finite, decompose, keep, arrays)
            return arrays, finite & solved

        def fold(arrays: LayerState) -> tuple[LayerState, Array]:
            oracle.tally(factors=2 * len(layers))
            seen = statistics(point)
            new = {layer.name: averaged(arrays[layer.name], *factors(layer, seen[layer.name], s)) for layer in layers}
            new, finite = solve(new, finite_factors(new))
            if moments is not None:
                new = moments(new, seen)
            kept = {name: {**entry, **{k: jnp.where(finite, entry[k], arrays[name][k]) for k in entry if k in FOLDED}}
                    for name, entry in new.items()}  # fmt: skip
            return kept, finite

        def rest(arrays: LayerState) -> tuple[LayerState, Array]:
            return keep(arrays) if s.inverse_every % s.factor_every == 0 else solve(arrays, jnp.asarray(True))

        if s.factor_every == 1:
            return (*fold(state.layers), state.more)
        wanted = (state.step % s.factor_every == 0) | unseen
        return (*oracle.cond(wanted, fold, rest, state.layers), state.more)

    def finite_factors(arrays: LayerState) -> Array:
        """In a Gram matrix no element is larger than the trace."""
        traces = [jnp.trace(entry[key]) for entry in arrays.values() for key in "AG"]
        return jnp.isfinite(jnp.stack(traces)).all()

    def finite_bases(arrays: LayerState) -> Array:
        keys = ("dA", "dG") if s.solve == "eigen" else ("iA", "iG")
        sums = [entry[key].sum() for entry in arrays.values() for key in keys]
        return jnp.isfinite(jnp.stack(sums)).all()

    def direct(state: LayerState, gradients: dict[str, Array], more: Any) -> dict[str, Array]:
        del more
        gradients = dict(gradients)
        found = []
        for layer in layers:
            W, entry = layer.matrix(gradients).astype(working(layer.dtype)), state[layer.name]
            if s.solve == "inverse":
                P = entry["iG"] @ W @ entry["iA"]
            else:
                scale = entry["S"] if scaled else jnp.outer(entry["dG"], entry["dA"])
                P = K.solve_eigen(W, entry["QA"], entry["QG"], scale, s.damping)
            found.append((layer, W, P))
        if s.kl_clip and s.rate is not None:
            change = jnp.abs(jnp.stack([(P * W).sum() * s.rate**2 for _, W, P in found]).sum())
            scale = jnp.minimum(jnp.sqrt(s.kl_clip / change), 1)  # x/0 is inf, hence 1
            found = [(layer, W, P * scale) for layer, W, P in found]
        for layer, _, P in found:
            layer.write(gradients, P)
        return gradients

    return Rule(init, curvature, direct)


def factors(layer: Layer, seen: Seen, s: Settings) -> tuple[Array, Array]:
    """This step's ``A [i, i]`` and ``G [o, o]``; XLA computes the Gram matrix of an input that layers share once."""
    bias, geo = layer.bias is not None, layer.geometry
    grams = [K.input_gram(x, geo, bias) for x in seen.inputs]
    to_term, terms = per_term(seen, s)
    outer = [_output_gram(g, geo) for g in seen.columns]
    if s.convention == "ggn":
        A = _total([gram for gram, _, _ in grams]) / seen.rows
        return A, _total(outer) * (to_term**2 / terms)
    share = [n * t * (t * t if geo is not None else 1) * len(grams) for _, n, t in grams]
    A = _total([gram / k for (gram, _, _), k in zip(grams, share, strict=True)])
    G = _total([gram / k for gram, k in zip(outer, share, strict=True)])
    return A, G * (to_term / terms) ** 2


def per_term(seen: Seen, s: Settings) -> tuple[float, Array | float]:
    """What turns an output gradient into one of a single term of the loss, and the number of terms."""
    if seen.terms is not None:
        return 1.0, seen.terms
    terms = float(seen.rows if s.loss_terms == "rows" else seen.samples)
    return terms if s.loss_reduction == "mean" else 1.0, terms


def _output_gram(columns: Array, geo: Any) -> Array:
    """``sum_k sum_nt g g'`` of columns ``[K, N, ...]``."""
    return K.output_gram(columns.reshape(-1, *columns.shape[2:]), geo)


def _total(terms: Sequence[Array]) -> Array:
    return sum(terms[1:], terms[0])
