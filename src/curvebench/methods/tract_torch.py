"""TrAct in torch (Petersen et al. 2024, arXiv 2410.23970): the first layer moves as if its outputs were trained.

With the first layer's inputs ``x [b, n]`` (patches, for a convolution) and output gradients ``dz [b, o]``:
``grad_W = dz' x (x'x / b + damping I)^-1``. Its bias, every other layer and the forward are as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from curvebench.errors import HyperparameterError
from curvebench.kernels.first_layer_torch import tract_gradient
from curvebench.kernels.kronecker_torch import input_rows, output_rows
from curvebench.kernels.mkor_torch import working
from curvebench.methods.layers_torch import NORMS
from curvebench.methods.preconditioner_torch import LayerPreconditioner
from curvebench.methods.validation import check
from curvebench.oracle.standalone_layers_torch import LayerPasses, StandaloneLayers


class TrAct(LayerPreconditioner):
    """TrAct for one Linear or Conv2d layer of a model, the first; a base optimiser takes the step.

    Args:
        model: the model.
        base: any torch optimiser of its parameters; None: SGD with ``lr`` and ``momentum``.
        damping: the paper's lambda, > 0; it found .05 to .2 good.
        layer: the name of the layer; empty: the first Linear or Conv2d in the order of ``named_modules``.
        shared: a layer that is used several times in one forward: ``'refuse'``, or ``'expand'``.
        skip: names of layers that are not the one.
        lr: step size of the SGD that is built without ``base``.
        momentum: its momentum.

    Raises:
        HyperparameterError: a value outside its range, or no supported layer of that name.
        CurvebenchError: tied weights, or no supported layer.

    The loss may have a mean or a sum over the batch, as without TrAct. Alone, keep a regulariser out of the loss and in
    the base optimiser: only the gradient that comes through the layer's output is used. In the harness the task's own
    regulariser is added to it, untransformed.
    Differs from the paper: nothing known.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        base: torch.optim.Optimizer | None = None,
        damping: float = 0.1,
        layer: str = "",
        shared: str = "refuse",
        skip: Sequence[str] = (),
        lr: float | None = None,
        momentum: float | None = None,
    ) -> None:
        check(self._name, "damping", damping, "(0, inf)")
        super().__init__(model, base=base, lr=lr, momentum=momentum, skip=skip, shared=shared, loss_reduction="mean")
        chosen = [entry for entry in self.layers if not layer or entry.name == layer][:1]
        if not chosen:
            known = ", ".join(repr(entry.name) for entry in self.layers)
            raise HyperparameterError(f"{self._name}: layer = {layer!r}: must be one of {known}")
        self.damping, self.layers = damping, chosen
        self._standalone.detach()
        modules = dict(model.named_modules())
        self._standalone = StandaloneLayers(model, {chosen[0].name: modules[chosen[0].name]}, pulled=False)
        first = list(modules).index(chosen[0].name)  # what comes later is no candidate: nothing to say about it
        self.unsupported = {name: why for name, why in self.unsupported.items()
                            if list(modules).index(name) < first and not isinstance(modules[name], NORMS)}  # fmt: skip
        self._direction: Tensor | None = None

    def _wants_statistics(self) -> bool:
        return True

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        (layer,) = self.layers
        passes = statistics[layer.name]
        dtype = working(layer.weight.dtype)
        x = torch.cat([input_rows(x, layer.geometry, False).flatten(0, 1) for x in passes.inputs]).to(dtype)
        dz = torch.cat([output_rows(g, layer.geometry).flatten(0, 1) for g in passes.columns[0]]).to(dtype)
        found = tract_gradient(x, dz / self.loss_scale, self.damping)
        self._direction = found
        self._tally(1, 1)
        return found is not None and bool(found.isfinite().all())

    def _apply(self) -> None:
        (layer,) = self.layers
        if self._direction is None or layer.weight.grad is None:
            return
        layer.weight.grad.copy_(self._direction.view_as(layer.weight))
        if self._oracle is not None and self._oracle.objective.l2:
            layer.weight.grad.add_(layer.weight, alpha=self._oracle.objective.l2)
        self._direction = None
