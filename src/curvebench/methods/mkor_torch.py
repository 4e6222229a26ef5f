"""MKOR in torch (Mozaffari et al. 2023, arXiv 2306.01685): inverse Kronecker factors, updated by one vector each.

Per layer with ``a`` the mean input (a one appended for the bias) and ``g`` the mean gradient of the samples' losses in
its outputs: ``JA <- update(JA, a)``, ``JG <- update(JG, g)``; the gradient ``W [o, i]`` becomes ``s JG W JA`` with
``s = (|dW| + |db|) / (|U_W| + |U_b|)``, which keeps its length, and the base optimiser takes the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvebench.errors import HyperparameterError
from curvebench.kernels import mkor_torch as K
from curvebench.kernels.kronecker_torch import batched
from curvebench.methods.layers_torch import Layer
from curvebench.methods.preconditioner_torch import LayerPreconditioner
from curvebench.methods.validation import check
from curvebench.oracle.standalone_layers_torch import LayerPasses

KEPT = ("JA", "JG", "reset_A", "reset_G")
"""What a layer keeps between steps: inverse factors, and whether they become the identity at their next update."""


class MKOR(LayerPreconditioner):
    """MKOR for the Linear and Conv2d layers of a model; all other gradients go to the base optimiser unchanged.

    Args:
        model: its Linear and Conv2d layers are preconditioned; ``unsupported`` names the others.
        base: any torch optimiser; None: SGD with ``lr`` and ``momentum``.
        inverse_every: steps between two updates of the inverse factors.
        rule: ``'code'``: the inverse of ``(.95 J + .05 I)^-1 + v v'``, as released; ``'ema'``: of
            ``.95 J^-1 + .05 v v'``; ``'paper'``: equation 5 as printed, which diverges.
        reset: ``'identity'``, as released: when an element of a factor exceeds 2 both factors of the layer become the
            identity at their next update, whose vector is not used; so they begin. ``'blend'``, as in the paper: such a
            factor is mixed, ``.9 J + .1 I``, before its update.
        warmup_steps: this many first steps all update the inverse factors.
        clip: bound of the elements of inputs and gradients before they are averaged, > 0.
        loss_reduction: of the loop's loss over the batch: ``'mean'`` or ``'sum'``.
        factor_dtype: of the inverse factors, e.g. ``torch.float16``; None: the parameters'. Half-precision factors are
            updated in float32.
        shared: layers used several times in one forward: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base optimiser.
        lr: step size of the SGD that is built without ``base``.
        momentum: its momentum.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: tied weights, or no supported layer.

    Differs from the paper with ``rule='code'``: everything that the released code does, the second division of ``g`` by
    the number of accumulated micro-batches included. Differs from the code: factors that are not finite are never kept.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        base: torch.optim.Optimizer | None = None,
        inverse_every: int = 10,
        rule: str = "code",
        reset: str = "identity",
        warmup_steps: int = 0,
        clip: float = 100.0,
        loss_reduction: str = "mean",
        factor_dtype: torch.dtype | None = None,
        shared: str = "refuse",
        skip: Sequence[str] = (),
        lr: float | None = None,
        momentum: float | None = None,
    ) -> None:
        check(self._name, "inverse_every", inverse_every, "[1, inf)")
        check(self._name, "rule", rule, K.RULES)
        check(self._name, "reset", reset, ("identity", "blend"))
        check(self._name, "warmup_steps", warmup_steps, "[0, inf)")
        check(self._name, "clip", clip, "(0, inf)")
        if factor_dtype is not None and not factor_dtype.is_floating_point:
            raise HyperparameterError(f"{self._name}: factor_dtype = {factor_dtype}: must be floating")
        self.inverse_every, self.warmup_steps = int(inverse_every), int(warmup_steps)
        self.rule, self.reset, self.clip, self.factor_dtype = rule, reset, clip, factor_dtype
        super().__init__(model, base=base, lr=lr, momentum=momentum, skip=skip, shared=shared,
                         loss_reduction=loss_reduction)  # fmt: skip

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """The inverse factors ``JA [i, i]`` and ``JG [o, o]`` of a layer; KeyError before their first update."""
        state = self.layer_state[name]
        return state["JA"], state["JG"]

    def _wants_statistics(self) -> bool:
        return self.steps % self.inverse_every == 0 or self.steps < self.warmup_steps

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        state = dict(self.layer_state)
        for layer in self.layers:
            if layer.name in statistics:
                vectors = self._vectors(layer, statistics[layer.name])
                state[layer.name] = self._updated(layer, state.get(layer.name), vectors)
        changed = [state[name][key] for name in statistics for key in ("JA", "JG", "a", "g")]
        if changed:  # one transfer from the device for all layers
            largest = torch.stack([K.largest(t) for t in changed])
            if not largest.isfinite().all():
                return False
            if self.reset == "identity":
                state = self._flagged(state, list(statistics), largest.tolist())
        self.layer_state = {name: {key: entry[key] for key in KEPT} for name, entry in state.items()}
        return True

    def _flagged(
        self, state: dict[str, dict[str, Any]], names: Sequence[str], largest: Sequence[float]
    ) -> dict[str, dict[str, Any]]:
        """Mark factors for a reset where one of the pair grew too large; ``largest`` holds four numbers for each name.

        The released code treats all input factors first, so that one of these resets its partner in the same step.
        """
        for k, name in enumerate(names):
            entry = state[name]
            if largest[4 * k] > K.LIMIT:
                entry = {**entry, "reset_A": True, "reset_G": False, "JG": _identity(entry["JG"])}
            elif largest[4 * k + 1] > K.LIMIT:
                entry = {**entry, "reset_A": True, "reset_G": True}
            state[name] = entry
        return state

    def _updated(self, layer: Layer, old: Mapping[str, Any] | None, vectors: tuple[Tensor, Tensor]) -> dict[str, Any]:
        new: dict[str, Any] = dict(zip("ag", vectors, strict=True))
        dtype = self.factor_dtype or layer.weight.dtype
        for key, vector in zip("AG", vectors, strict=True):
            flag = self.reset == "identity" if old is None else old[f"reset_{key}"]
            J = torch.eye(len(vector), dtype=dtype, device=vector.device) if old is None else old[f"J{key}"]
            before = K.blended(J) if self.reset == "blend" else J
            J = _identity(J) if flag else K.rank_one(before, vector, self.rule)
            new |= {f"J{key}": J, f"reset_{key}": False}
        return new

    def _vectors(self, layer: Layer, passes: LayerPasses) -> tuple[Tensor, Tensor]:
        """Mean input ``a [i]`` and mean gradient ``g [o]`` of a sample's loss, averaged over micro-batches."""
        geo, count = layer.geometry, len(passes.inputs)
        dtype = K.working(layer.weight.dtype)
        share = 1 / count
        a = [K.mean_input(x.to(dtype), geo, layer.bias is not None, self.clip, share) for x in passes.inputs]
        # The loop divided each loss by the number of micro-batches already; the released code does it once more.
        twice = share if self.rule == "code" else 1.0
        g = []
        for gradient in passes.columns[0]:
            rows = len(batched(gradient, geo)) if geo is not None else gradient[..., 0].numel()
            scale = rows * twice if self.loss_reduction == "mean" else share
            g.append(K.mean_gradient(gradient.to(dtype), geo, self.clip, scale / self.loss_scale))
        return torch.stack(a).sum(0), torch.stack(g).sum(0)

    def _apply(self) -> None:
        found = []
        for layer, W in self._gradients():
            if (state := self.layer_state.get(layer.name)) is not None:
                dtype = K.working(W.dtype)
                U = state["JG"].to(dtype) @ W.to(dtype) @ state["JA"].to(dtype)
                found.append((layer, U, K.length_ratio(W.to(dtype), U, layer.bias is not None)))
        ratios = torch.stack([ratio for _, _, ratio in found]).tolist() if found else []
        for (layer, U, _), ratio in zip(found, ratios, strict=True):
            if math.isfinite(ratio):  # else 0/0 or x/0: the layer keeps its plain gradient
                layer.write(U, ratio)


def _identity(J: Tensor) -> Tensor:
    return torch.eye(len(J), dtype=J.dtype, device=J.device)
