"""MKOR in torch (Mozaffari et al. 2023, arXiv 2306.01685): inverse Kronecker factors, updated by one vector each.

Per layer with ``a`` the mean input (a one appended for the bias) and ``g`` the mean gradient of the samples' losses in
its outputs: ``JA <- update(JA, a)``, ``JG <- update(JG, g)``; the gradient ``W [o, i]`` becomes ``s JG W JA`` with
``s = (|dW| + |db|) / (|U_W| + |U_b|)``, which keeps its length, and the base optimiser takes the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from curvebench.errors import HyperparameterError
from curvebench.kernels import mkor_torch as K
from curvebench.kernels.kronecker_torch import batched
from curvebench.methods.layers_torch import Layer
from curvebench.methods.preconditioner_torch import LayerPreconditioner
from curvebench.methods.validation import check, whole
from curvebench.oracle.standalone_layers_torch import LayerPasses


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
        norm: the length that a layer's gradient keeps: ``'sum'``, ``|dW| + |db|``, as released; ``'joint'``, that of
            ``[dW, db]``, as in the paper.
        double_average: divide ``g`` by the number of accumulated micro-batches once more than the loop does, as
            released; None: with ``rule='code'`` only.
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
        norm: str = "sum",
        double_average: bool | None = None,
        factor_dtype: torch.dtype | None = None,
        shared: str = "refuse",
        skip: Sequence[str] = (),
        lr: float | None = None,
        momentum: float | None = None,
    ) -> None:
        self.inverse_every = whole(self._name, "inverse_every", inverse_every, "[1, inf)")
        check(self._name, "rule", rule, K.RULES)
        check(self._name, "reset", reset, ("identity", "blend"))
        self.warmup_steps = whole(self._name, "warmup_steps", warmup_steps, "[0, inf)")
        check(self._name, "clip", clip, "(0, inf)")
        check(self._name, "norm", norm, K.NORMS)
        if factor_dtype is not None and not factor_dtype.is_floating_point:
            raise HyperparameterError(f"{self._name}: factor_dtype = {factor_dtype}: must be floating")
        self.rule, self.reset, self.clip, self.factor_dtype = rule, reset, clip, factor_dtype
        self.norm = norm
        self.double_average = rule == "code" if double_average is None else bool(double_average)
        super().__init__(model, base=base, lr=lr, momentum=momentum, skip=skip, shared=shared,
                         loss_reduction=loss_reduction)  # fmt: skip

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """The inverse factors ``JA [i, i]`` and ``JG [o, o]`` of a layer; KeyError before their first update."""
        state = self.layer_state[name]
        return state["JA"], state["JG"]

    def _wants_statistics(self) -> bool:
        return self.steps % self.inverse_every == 0 or self.steps < self.warmup_steps

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        if not statistics:
            return True
        layers = [layer for layer in self.layers if layer.name in statistics]
        plans = self._plans(layers, [self._vectors(layer, statistics[layer.name]) for layer in layers])
        # One transfer from the device for all layers: what the factors' largest elements will be.
        seen = torch.stack([x for plan in plans for x in (plan.after, plan.vector)]).tolist()
        ceilings = [torch.finfo(dtype).max for plan in plans for dtype in (plan.J.dtype, torch.float64)]
        if not all(x <= ceiling for x, ceiling in zip(seen, ceilings, strict=True)):  # nor if it is NaN
            return False
        self._tally(sum(plan.step is not None for plan in plans), len(plans))
        for layer, A, G, a, g in zip(layers, plans[::2], plans[1::2], seen[::4], seen[2::4], strict=True):
            self.layer_state[layer.name] = self._flagged(A.done(), G.done(), a, g)
        return True

    def _plans(self, layers: Sequence[Layer], vectors: Sequence[tuple[Tensor, Tensor]]) -> list[_Plan]:
        """What this step does to the factors, A and G of each layer in turn; nothing is changed yet."""
        factors: list[tuple[Tensor, Tensor, bool]] = []
        for layer, pair in zip(layers, vectors, strict=True):
            state = self.layer_state.get(layer.name)
            for key, v in zip("AG", pair, strict=True):
                if state is None:
                    J = torch.eye(len(v), dtype=self.factor_dtype or layer.weight.dtype, device=v.device)
                    factors.append((J, v, self.reset == "identity"))
                else:
                    factors.append((state[f"J{key}"], v, state[f"reset_{key}"]))
        zetas = [1.0] * len(factors)
        if self.reset == "blend":
            sizes = torch.stack([K.largest(J) for J, _, _ in factors]).tolist()
            zetas = [K.ZETA if size > K.LIMIT else 1.0 for size in sizes]
        return [
            _Plan.of(J, v, None if flag else K.rank_one_step(J, v, self.rule, zeta=zeta))
            for (J, v, flag), zeta in zip(factors, zetas, strict=True)
        ]

    def _flagged(self, JA: Tensor, JG: Tensor, a: float, g: float) -> dict[str, Any]:
        """A layer's new state; factors are marked for a reset where one of the pair, of size ``a`` or ``g``, is large.

        The released code treats all input factors first, so that one of these resets its partner in the same step.
        """
        if self.reset == "identity" and a > K.LIMIT:
            return {"JA": JA, "JG": _identity(JG), "reset_A": True, "reset_G": False}
        large = self.reset == "identity" and g > K.LIMIT
        return {"JA": JA, "JG": JG, "reset_A": large, "reset_G": large}

    def _vectors(self, layer: Layer, passes: LayerPasses) -> tuple[Tensor, Tensor]:
        """Mean input ``a [i]`` and mean gradient ``g [o]`` of a sample's loss, averaged over micro-batches."""
        geo, count = layer.geometry, len(passes.inputs)
        dtype = K.working(layer.weight.dtype)
        share = 1 / count
        a = [K.mean_input(x.to(dtype), geo, layer.bias is not None, self.clip, share) for x in passes.inputs]
        # The loop divided each loss by the number of micro-batches already; the released code does it once more.
        twice = share if self.double_average else 1.0
        g = []
        for gradient in passes.columns[0]:
            rows = len(batched(gradient, geo)) if geo is not None else gradient[..., 0].numel()
            scale = rows * twice if self.loss_reduction == "mean" else share
            g.append(K.mean_gradient(gradient.to(dtype), geo, self.clip, scale / self.loss_scale))
        return torch.stack(a).sum(0), torch.stack(g).sum(0)

    def _apply(self) -> None:
        found = []
        for layer in self.layers:
            weight, bias = layer.weight.grad, None if layer.bias is None else layer.bias.grad
            state = self.layer_state.get(layer.name)
            if state is None or weight is None or (layer.bias is not None and bias is None):
                continue
            dtype = K.working(weight.dtype)
            W, b = weight.flatten(1).to(dtype), None if bias is None else bias.to(dtype)
            U, c = K.preconditioned(state["JG"].to(dtype), state["JA"].to(dtype), W, b)
            found.append((weight, bias, U, c, K.length(W, b, self.norm) / K.length(U, c, self.norm)))
        ratios = torch.stack([ratio for *_, ratio in found]).tolist() if found else []
        for (weight, bias, U, c, _), ratio in zip(found, ratios, strict=True):
            if math.isfinite(ratio):  # else 0/0 or x/0: the layer keeps its plain gradient
                torch.mul(U.view_as(weight), ratio, out=weight)
                if bias is not None and c is not None:
                    torch.mul(c, ratio, out=bias)


class _Plan(NamedTuple):
    """A factor, its step (None: it becomes the identity), and the largest elements after it and of its vector."""

    J: Tensor
    step: K.Step | None
    after: Tensor
    vector: Tensor

    @classmethod
    def of(cls, J: Tensor, v: Tensor, step: K.Step | None) -> _Plan:
        after = torch.ones_like(v[0]) if step is None else K.diagonal_after(J, step).abs().max()
        return cls(J, step, after, v.abs().max())

    def done(self) -> Tensor:
        """The factor after the step, which is taken in place."""
        return _identity(self.J) if self.step is None else K.update_(self.J, self.step)


def _identity(J: Tensor) -> Tensor:
    return torch.eye(len(J), dtype=J.dtype, device=J.device)
