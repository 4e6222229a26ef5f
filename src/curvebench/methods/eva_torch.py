"""Eva in torch (Zhang et al. 2023): K-FAC with factors of rank one, inverted by Sherman and Morrison.

Per layer with ``a`` the mean input (a one appended for the bias) and ``g`` the mean gradient of the samples' losses in
its outputs, each averaged over steps: ``P = (gg' kron aa' + damping I)^-1 W
= (W - (g'Wa) / (damping + |a|^2 |g|^2) g a') / damping``; all P times ``min(1, sqrt(kl_clip / |sum <P, W> lr^2|))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvebench.kernels import mkor_torch as K
from curvebench.kernels.kronecker_torch import batched
from curvebench.kernels.rank_one_torch import eva_direction
from curvebench.methods.layers_torch import Layer
from curvebench.methods.preconditioner_torch import LayerPreconditioner
from curvebench.methods.validation import check
from curvebench.oracle.standalone_layers_torch import LayerPasses


class Eva(LayerPreconditioner):
    """Eva for the Linear and Conv2d layers of a model; all other gradients go to the base optimiser unchanged.

    Args:
        model: its Linear and Conv2d layers are preconditioned; ``unsupported`` names the others.
        base: any torch optimiser; None: SGD with ``lr`` and ``momentum``.
        damping: > 0.
        factor_decay: of the running means of a and g, in [0, 1); 0: the step's own.
        kl_clip: bound on the step's size in the metric; 0: none, and steps are about ``1 / damping`` times as long.
        loss_reduction: of the loop's loss over the batch: ``'mean'`` or ``'sum'``.
        shared: layers used several times in one forward: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base optimiser.
        lr: step size of the SGD that is built without ``base``.
        momentum: its momentum.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: tied weights, or no supported layer.

    What is known here of Eva is its formula and MKOR's comparison with it; running means start without bias
    (``sum_k decay^k X_k / sum_k decay^k``), which is ours.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        base: torch.optim.Optimizer | None = None,
        damping: float = 0.03,
        factor_decay: float = 0.95,
        kl_clip: float = 1e-3,
        loss_reduction: str = "mean",
        shared: str = "refuse",
        skip: Sequence[str] = (),
        lr: float | None = None,
        momentum: float | None = None,
    ) -> None:
        check(self._name, "damping", damping, "(0, inf)")
        check(self._name, "factor_decay", factor_decay, "[0, 1)")
        check(self._name, "kl_clip", kl_clip, "[0, inf)")
        self.damping, self.factor_decay, self.kl_clip = damping, factor_decay, kl_clip
        super().__init__(model, base=base, lr=lr, momentum=momentum, skip=skip, shared=shared,
                         loss_reduction=loss_reduction)  # fmt: skip

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """The running means ``a [i]`` and ``g [o]`` of a layer; KeyError before its first step."""
        state = self.layer_state[name]
        return state["a"] / state["weight"], state["g"] / state["weight"]

    def _wants_statistics(self) -> bool:
        return True

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        state: dict[str, dict[str, Any]] = {}
        for layer in self.layers:
            if layer.name in statistics:
                a, g = self._means(layer, statistics[layer.name])
                old = self.layer_state.get(layer.name, {"a": 0.0, "g": 0.0, "weight": 0.0})
                decay = self.factor_decay
                state[layer.name] = {"a": a + decay * old["a"], "g": g + decay * old["g"],
                                     "weight": 1 + decay * old["weight"]}  # fmt: skip
        fresh = [entry[key] for entry in state.values() for key in "ag"]
        if not torch.stack(torch._foreach_norm(fresh)).isfinite().all():
            return False
        self._tally(len(fresh), 0)
        self.layer_state |= state
        return True

    def _means(self, layer: Layer, passes: LayerPasses) -> tuple[Tensor, Tensor]:
        geo, dtype, share = layer.geometry, K.working(layer.weight.dtype), 1 / len(passes.inputs)
        a = [K.mean_input(x.to(dtype), geo, layer.bias is not None, math.inf, share) for x in passes.inputs]
        g = []
        for gradient in passes.columns[0]:
            rows = len(batched(gradient, geo)) if geo is not None else gradient[..., 0].numel()
            scale = rows if self.loss_reduction == "mean" else share
            g.append(K.mean_gradient(gradient.to(dtype), geo, math.inf, scale / self.loss_scale))
        return torch.stack(a).sum(0), torch.stack(g).sum(0)

    def _apply(self) -> None:
        found = []
        for layer, W in self._gradients():
            if layer.name in self.layer_state:
                a, g = self.factors(layer.name)
                W = W.to(a.dtype)
                found.append((layer, W, eva_direction(W, a, g, self.damping)))
        scale = 1.0
        if self.kl_clip and found:
            rates = {p: float(group["lr"]) for group in self.base.param_groups for p in group["params"]}
            size = abs(float(torch.stack([(P * W).sum() * rates[layer.weight] ** 2 for layer, W, P in found]).sum()))
            scale = min(1.0, math.sqrt(self.kl_clip / size)) if size > 0 else 1.0
        for layer, _, P in found:
            layer.write(P, scale)
