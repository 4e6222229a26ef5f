"""K-FAC in torch (Martens and Grosse 2015, arXiv 1503.05671; convolutions: Grosse and Martens 2016, arXiv 1602.01407).

Per layer with inputs ``a`` (a one appended for the bias) and gradients ``g`` of each sample's loss in its outputs:
``A = mean a a'``, ``G = mean g g'``, both averaged over steps; the gradient ``W [o, i]`` becomes
``P = QG [(QG' W QA) / (dG dA' + damping)] QA'`` in the factors' eigenbases, or ``(G + dg I)^-1 W (A + da I)^-1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvebench.kernels import kronecker_torch as K
from curvebench.methods.layers_torch import Layer
from curvebench.methods.preconditioner_torch import LayerPreconditioner
from curvebench.methods.validation import check, whole
from curvebench.oracle.standalone_layers_torch import LayerPasses


class KFAC(LayerPreconditioner):
    """K-FAC for the Linear and Conv2d layers of a model; all other gradients go to the base optimiser unchanged.

    ``opt = KFAC(model, base=torch.optim.SGD(model.parameters(), lr=0.1))``, then an ordinary loop with
    ``opt.zero_grad()`` and ``opt.step()``; or ``opt.precondition(); base.step()``. With gradient accumulation divide
    each micro-batch's loss by their number. Half-precision parameters have float32 factors.

    Args:
        model: its Linear and Conv2d layers are preconditioned; ``unsupported`` names the others.
        base: any torch optimiser; None: SGD with ``lr`` and ``momentum``.
        damping: added to the curvature, > 0.
        factor_decay: decay of the averaged factors, in [0, 1).
        factor_every: steps between two updates of the factors.
        inverse_every: steps between two eigendecompositions or inversions.
        kl_clip: the step is shortened so that ``|sum <P, W>| lr^2`` is at most this; None or 0: never.
        solve: ``'eigen'`` or ``'inverse'``.
        fisher: ``'empirical'``: gradients of the loop's own loss; ``'mc'``: of targets sampled from the model;
            ``'type-2'``: the exact Gauss-Newton factor, one backward per output. The last two need ``observe`` before
            ``backward``.
        loss_reduction: of the loop's loss over the batch: ``'mean'`` or ``'sum'``. The factors are the mean loss's in
            both cases, and the gradient stays what it is.
        convention: ``'ggn'``: ``G kron A`` is the block of the mean loss's Gauss-Newton or Fisher matrix, and averages
            have no start value; ``'kfac-pytorch'``: the formulas of that library: gradients of the mean loss as they
            are, convolutions divided by their number of positions, averages from the identity, no pi.
        pi: with ``solve='inverse'`` and ``convention='ggn'``: split the damping between the factors by their traces
            (``sqrt(damping) pi`` and ``sqrt(damping) / pi``); False: equally.
        loss_terms: what the mean loss is a mean over: ``'samples'``, the first dimension of a layer's input, or
            ``'rows'``, all but its last, as for a language model's tokens.
        shared: layers used several times in one forward: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base optimiser.
        lr: step size of the SGD that is built without ``base``.
        momentum: its momentum.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: tied weights, or no supported layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        base: torch.optim.Optimizer | None = None,
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
        lr: float | None = None,
        momentum: float | None = None,
    ) -> None:
        check(self._name, "damping", damping, "(0, inf)")
        check(self._name, "factor_decay", factor_decay, "[0, 1)")
        self.factor_every = whole(self._name, "factor_every", factor_every, "[1, inf)")
        self.inverse_every = whole(self._name, "inverse_every", inverse_every, "[1, inf)")
        if kl_clip is not None:
            check(self._name, "kl_clip", kl_clip, "[0, inf)")
        check(self._name, "solve", solve, ("eigen", "inverse"))
        check(self._name, "convention", convention, ("ggn", "kfac-pytorch"))
        check(self._name, "loss_terms", loss_terms, ("samples", "rows"))
        self.damping, self.factor_decay, self.kl_clip = damping, factor_decay, kl_clip
        self.solve, self.convention, self.pi, self.loss_terms = solve, convention, pi, loss_terms
        super().__init__(model, base=base, lr=lr, momentum=momentum, skip=skip, shared=shared,
                         loss_reduction=loss_reduction, fisher=fisher)  # fmt: skip

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """The averaged factors ``A [i, i]`` and ``G [o, o]`` of a layer; KeyError before its first statistics."""
        state = self.layer_state[name]
        return state["A"], state["G"]

    # -- factors -------------------------------------------------------------------------------------------------------

    def _wants_statistics(self) -> bool:
        return self.steps % self.factor_every == 0 or not self.layer_state

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        grams: dict[Any, tuple[Tensor, int, int]] = {}  # of inputs that several layers share, such as an attention's
        fresh = {layer.name: self._averaged(layer, self._factors(layer, statistics[layer.name], grams))
                 for layer in self.layers if layer.name in statistics}  # fmt: skip
        if fresh and not _finite([X for entry in fresh.values() for X in (entry["A"], entry["G"])]):
            return False
        merged = {name: {**self.layer_state.get(name, {}), **entry} for name, entry in fresh.items()}
        state = {**self.layer_state, **merged}
        due = self.steps % self.inverse_every == 0
        self._tally(2 * len(fresh), 0)
        try:
            for name, entry in state.items():
                if due or not self._solved(entry):
                    self._tally(0, 2)
                    state[name] = {**entry, **self._decomposed(entry)}
        except K.NOT_SOLVED:
            return False
        self.layer_state = state
        return True

    def _factors(
        self, layer: Layer, passes: LayerPasses, known: dict[Any, tuple[Tensor, int, int]]
    ) -> tuple[Tensor, Tensor]:
        """This step's ``A`` and ``G``; Gram matrices of inputs are looked up in, and added to, the ``known`` ones."""
        bias, geo = layer.bias is not None, layer.geometry
        dtype = _at_least_float32(layer.weight.dtype)
        grams = []
        for x in passes.inputs:
            key = (x.data_ptr(), x.shape, x.stride(), geo, bias)  # all inputs are alive, so an address is one tensor
            if key not in known:
                known[key] = K.input_gram(x.to(dtype), geo, bias)
            grams.append(known[key])
        rows = sum(n * t for _, n, t in grams)
        to_term, terms = self._terms(passes, [n for _, n, _ in grams], rows)
        outer = [K.output_gram(g.to(dtype), geo) for column in passes.columns for g in column]
        if self.convention == "ggn":
            A = _total([gram for gram, _, _ in grams]) / rows
            return A, _total(outer) * (to_term**2 / terms)
        share = [n * t * (t * t if geo is not None else 1) * len(grams) for _, n, t in grams]
        A = _total([gram / s for (gram, _, _), s in zip(grams, share, strict=True)])
        G = _total([gram / share[k % len(share)] for k, gram in enumerate(outer)])
        return A, G * (to_term / terms) ** 2

    def _terms(self, passes: LayerPasses, samples: Sequence[int], rows: int) -> tuple[float, float]:
        """What turns an output gradient into one of a single term of the loss, and the number of terms."""
        if passes.terms is not None:
            return 1.0, passes.terms
        terms = rows if self.loss_terms == "rows" else sum(samples) * passes.passes / len(samples)
        return (terms if self.loss_reduction == "mean" else 1.0) / self.loss_scale, terms

    def _averaged(self, layer: Layer, new: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The factors after this step's, as new tensors."""
        old, decay = self.layer_state.get(layer.name), self.factor_decay
        A, G = new
        if self.convention == "ggn":
            weight = decay * (old["weight"] if old else 0.0) + 1
            if old:
                A, G = torch.lerp(old["A"], A, 1 / weight), torch.lerp(old["G"], G, 1 / weight)
            return {"A": A, "G": G, "weight": weight}
        start = old or {"A": _identity(A), "G": _identity(G)}
        return {"A": decay * start["A"] + (1 - decay) * A, "G": decay * start["G"] + (1 - decay) * G, "weight": 1.0}

    # -- solves --------------------------------------------------------------------------------------------------------

    def _solved(self, state: Mapping[str, Any]) -> bool:
        return ("QA" if self.solve == "eigen" else "iA") in state

    def _decomposed(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        A, G = state["A"], state["G"]
        if self.solve == "eigen":
            (dA, QA), (dG, QG) = K.eigenbasis(A), K.eigenbasis(G)
            return {"QA": QA, "QG": QG, "dA": dA, "dG": dG}
        if self.convention == "kfac-pytorch":
            return {"iA": K.damped_inverse(A, self.damping), "iG": K.damped_inverse(G, self.damping)}
        root = self.damping**0.5
        split = K.pi(A, G) if self.pi else torch.ones_like(A[0, 0])
        return {"iA": K.damped_inverse(A, root * split), "iG": K.damped_inverse(G, root / split)}

    def _direction(self, state: Mapping[str, Any], W: Tensor) -> Tensor:
        if self.solve == "inverse":
            direction: Tensor = state["iG"] @ W @ state["iA"]
            return direction
        return K.solve_eigen(W, state["QA"], state["QG"], torch.outer(state["dG"], state["dA"]), self.damping)

    def _apply(self) -> None:
        found = []
        for layer, W in self._gradients():
            if layer.name in self.layer_state:
                W = W.to(_at_least_float32(W.dtype))
                found.append((layer, W, self._direction(self.layer_state[layer.name], W)))
        if self.kl_clip and found:
            rates = {p: float(group["lr"]) for group in self.base.param_groups for p in group["params"]}
            change = torch.stack([(P * W).sum() * rates[layer.weight] ** 2 for layer, W, P in found]).sum().abs()
            scale = (self.kl_clip / change).sqrt().clamp_max(1.0)  # 0/0 cannot be: kl_clip > 0; x/0 is inf, hence 1
            found = [(layer, W, P * scale) for layer, W, P in found]
        for layer, _, P in found:
            layer.write(P)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _total(terms: Sequence[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else torch.stack(list(terms)).sum(0)


def _identity(X: Tensor) -> Tensor:
    return torch.eye(len(X), dtype=X.dtype, device=X.device)


def _finite(factors: Sequence[Tensor]) -> bool:
    """Whether all factors are finite: in a Gram matrix no element is larger than the trace."""
    return bool(torch.stack([X.trace() for X in factors]).isfinite().all())
