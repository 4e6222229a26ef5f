"""EKFAC in torch (George et al. 2018, arXiv 1806.03884): K-FAC's eigenbases, with the second moments measured in them.

With ``W_n [o, i]`` the gradient of sample n: ``S = mean_n (QG' W_n QA)^2``, averaged over steps;
``P = QG [(QG' W QA) / (S + damping)] QA'``. The sum of ``S`` is the trace of the layer's Fisher block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from curvebench.kernels import kronecker_torch as K
from curvebench.methods.kfac_torch import KFAC
from curvebench.methods.layers_torch import Layer
from curvebench.methods.validation import check
from curvebench.oracle.standalone_layers_torch import LayerPasses


class EKFAC(KFAC):
    """EKFAC: the arguments of :class:`~curvebench.methods.kfac_torch.KFAC`, with ``solve='eigen'`` alone.

    Differs from the paper: when the eigenbases change, the averaged second moments are carried over to the new ones,
    which keeps their sum, instead of starting again.
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
        check(self._name, "solve", solve, ("eigen",))
        super().__init__(model, base=base, damping=damping, factor_decay=factor_decay, factor_every=factor_every,
                         inverse_every=inverse_every, kl_clip=kl_clip, solve=solve, fisher=fisher,
                         loss_reduction=loss_reduction, convention=convention, pi=pi, loss_terms=loss_terms,
                         shared=shared, skip=skip, lr=lr, momentum=momentum)  # fmt: skip

    def scaling(self, name: str) -> Tensor:
        """The averaged second moments ``S [o, i]`` of a layer; KeyError before its first statistics."""
        scaling: Tensor = self.layer_state[name]["S"]
        return scaling

    def _decomposed(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        new = super()._decomposed(state)
        if "S" in state:
            new["S"] = K.transported(state["S"], state["QA"], state["QG"], new["QA"], new["QG"])
        return new

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        before = self.layer_state
        if not super()._update(statistics):
            return False
        for layer in self.layers:
            if layer.name in statistics:
                state = self.layer_state[layer.name]
                moments = self._second_moments(layer, state, statistics[layer.name])
                if self.convention == "ggn":
                    S = torch.lerp(state["S"], moments, 1 / state["weight"]) if "S" in state else moments
                else:  # the identity that the factors start from has unit second moments
                    decay = self.factor_decay
                    S = decay * state.get("S", torch.ones_like(moments)) + (1 - decay) * moments
                self.layer_state[layer.name] = {**state, "S": S}
        if statistics and not torch.stack([self.layer_state[name]["S"].sum() for name in statistics]).isfinite().all():
            self.layer_state = before
            return False
        return True

    def _second_moments(self, layer: Layer, state: Mapping[str, Any], passes: LayerPasses) -> Tensor:
        geo, dtype, uses = layer.geometry, state["A"].dtype, len(passes.inputs) // passes.passes
        inputs = [K.batched(x, geo) for x in passes.inputs]
        columns = [[K.batched(g, geo) for g in column] for column in passes.columns]
        samples = [len(x) for x in inputs]
        positions = [K.output_rows(g[:1], geo).shape[1] for g in columns[0]]
        rows = sum(n * t for n, t in zip(samples, positions, strict=True))
        to_term, terms = self._terms(passes, samples, rows)
        total = torch.zeros(len(state["G"]), len(state["A"]), dtype=dtype, device=state["A"].device)
        for start in range(0, len(inputs), uses):  # uses of one pass are positions of the same samples
            pass_ = slice(start, start + uses)
            n, t = samples[start], sum(positions[pass_])
            scale = to_term**2 / terms
            if self.convention == "kfac-pytorch":
                scale = (to_term / terms) ** 2 / (n * t * passes.passes * (t**4 if geo is not None else 1))
            size = max(1, K.CHUNK // (t * total.shape[1]))
            for k in range(0, n, size):
                part = slice(k, k + size)
                a = torch.cat([K.input_rows(x[part].to(dtype), geo, layer.bias is not None) for x in inputs[pass_]], 1)
                for column in columns:
                    g = torch.cat([K.output_rows(g[part].to(dtype), geo) for g in column[pass_]], 1)
                    if self.loss_terms == "rows" and passes.terms is None:
                        pair = a.flatten(0, 1)[:, None], g.flatten(0, 1)[:, None]
                    else:
                        pair = a, g
                    total.add_(K.second_moments(*pair, state["QA"], state["QG"]), alpha=scale)
        return total

    def _direction(self, state: Mapping[str, Any], W: Tensor) -> Tensor:
        return K.solve_eigen(W, state["QA"], state["QG"], state["S"], self.damping)
