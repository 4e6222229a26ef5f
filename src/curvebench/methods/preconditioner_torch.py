"""What the layer-wise preconditioners share: the layers of a model, the base optimiser, the order of a step, the state.

A preconditioner rewrites the gradients of the layers that it understands and leaves the step to a base optimiser:
``precondition(); base.step()``. Layers' inputs and output gradients come from the loop's own forward and backward.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.kronecker_torch import FISHERS, LIKELIHOODS, fisher_columns
from curvebench.methods.layers_torch import NORMS, Layer, find_layers, shown
from curvebench.methods.validation import check
from curvebench.oracle.standalone_layers_torch import LayerPasses, StandaloneLayers, StandaloneLayersPoint
from curvebench.oracle.streams_torch import fill_
from curvebench.oracle.torch import Point, TorchOracle
from curvebench.spec import Query

_LOG = logging.getLogger("curvebench.methods")
_GRADIENT = frozenset({Query.GRADIENT})
_BOTH = frozenset({Query.GRADIENT, Query.LAYER_STATISTICS})


class LayerPreconditioner:
    """Base of the preconditioners: a subclass says how statistics become state, and state a direction.

    Args:
        model: the model; its Linear and Conv2d layers are preconditioned.
        base: any torch optimiser of the model's parameters; None: SGD with ``lr`` and ``momentum``.
        lr: step size of the SGD that is built without ``base``.
        momentum: its momentum.
        skip: names of layers that are left to the base optimiser.
        shared: a layer that is used several times in one forward: ``'refuse'``, or ``'expand'``: its uses count as
            positions of a sequence.
        loss_reduction: how the loop's loss is reduced over the batch: ``'mean'`` or ``'sum'``.
        fisher: whose gradients make the curvature: ``'empirical'``, ``'mc'`` or ``'type-2'``.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: no supported layer, or tied weights.
    """

    takes: ClassVar[str] = "model"
    """What the harness hands to the constructor first."""
    needs: ClassVar[tuple[str, ...]] = ("gradient", "layer_statistics")
    loss_scale: float = 1.0
    """The factor of a gradient scaler: gradients of outputs are divided by it. Unscale ``p.grad`` before the step."""

    def __init__(
        self,
        model: nn.Module,
        *,
        base: torch.optim.Optimizer | None,
        lr: float | None,
        momentum: float | None,
        skip: Sequence[str],
        shared: str,
        loss_reduction: str,
        fisher: str = "empirical",
    ) -> None:
        check(self._name, "shared", shared, ("refuse", "expand"))
        check(self._name, "loss_reduction", loss_reduction, ("mean", "sum"))
        check(self._name, "fisher", fisher, FISHERS)
        self.base = self._base(model, base, lr, momentum)
        self.shared, self.loss_reduction, self.fisher = shared, loss_reduction, fisher
        self.layers, self.unsupported = find_layers(self._name, model, self.base, skip)
        self.steps = 0
        self.skipped = 0
        """Steps that were not taken because the curvature was not finite."""
        self.layer_state: dict[str, dict[str, Any]] = {}
        self._oracle: TorchOracle | None = None
        self._generator: torch.Generator | None = None
        modules = dict(model.named_modules())
        watched = {layer.name: modules[layer.name] for layer in self.layers}
        self._standalone = StandaloneLayers(model, watched, pulled=fisher != "empirical")
        if self.unsupported:
            names = ", ".join(f"{name!r} ({why})" for name, why in self.unsupported.items())
            ordinary = all(isinstance(modules[name], NORMS) for name in self.unsupported)
            _LOG.log(logging.INFO if ordinary else logging.WARNING, "%s: %s", self._name, self._unchanged(names))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _base(
        self, model: nn.Module, base: torch.optim.Optimizer | None, lr: float | None, momentum: float | None
    ) -> torch.optim.Optimizer:
        if base is not None:
            if lr is not None or momentum is not None:
                raise HyperparameterError(f"{self._name}: lr and momentum are the base optimiser's: set them there")
            return base
        if lr is None:
            raise HyperparameterError(f"{self._name}: pass base, the optimiser that takes the step, or lr for an SGD")
        check(self._name, "lr", lr, "[0, inf)")
        check(self._name, "momentum", momentum or 0.0, "[0, 1)")
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=momentum or 0.0)

    def _unchanged(self, names: str) -> str:
        return f"not preconditioned, their gradients go to {type(self.base).__name__} unchanged: {names}"

    # -- what a loop calls ---------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """``precondition(); base.step()``; the closure, if any, runs forward and backward and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.precondition():
            self.base.step()
        return loss

    @torch.no_grad()
    def precondition(self) -> bool:
        """Rewrite the gradients of the layers; False if the step must be skipped.

        On a skipped step (curvature that is not finite) all gradients are set to None, so that ``base.step()`` does
        nothing, the state stays as it was, and ``skipped`` counts it.

        Raises:
            CurvebenchError: no gradients, no layer statistics, or a layer that was used twice in one forward.
        """
        wanted = self._wants_statistics()
        if self._oracle is not None:
            point: Any = self._oracle.at(needs=_BOTH if wanted else _GRADIENT, fisher=self.fisher)
            for p, g in zip(self._oracle.parameters, point.gradient(), strict=True):
                p.grad = g.clone() if _overlaps(g) else g
            self._saw(point.loss)
        else:
            point = self._standalone.at(_BOTH)
            if all(g is None for g in point.gradient()):
                raise CurvebenchError(f"{self._name}: no parameter has a gradient: call loss.backward() before step()")
        try:
            finite = self._update(self._statistics(point) if wanted else {})
        finally:
            self._standalone.clear()
        self.steps += 1
        self._standalone.enabled = self._wants_statistics()
        if not finite:
            self.skipped += 1
            _LOG.warning("%s: step %d skipped: the curvature is not finite", self._name, self.steps)
            for group in self.base.param_groups:
                for p in group["params"]:
                    p.grad = None
            return False
        self._apply()
        return True

    def observe(self, outputs: Tensor, likelihood: str = "categorical") -> None:
        """Tell the model's outputs, between forward and backward; needed for ``fisher='mc'`` and ``'type-2'`` only.

        Args:
            outputs: what the model returned: logits with the classes in the last dimension, or means ``[..., C]``.
            likelihood: ``categorical``; ``gaussian``, whose loss is ``|o - y|^2 / 2`` summed over ``C`` and averaged
                over all other dimensions; or ``bernoulli``, whose ``C`` logits' losses are summed likewise.
        """
        check(self._name, "likelihood", likelihood, LIKELIHOODS)
        if self.fisher == "empirical":
            return
        if self._generator is None:
            self._generator = torch.Generator(outputs.device).manual_seed(torch.initial_seed())
        columns = fisher_columns(outputs, likelihood, self.fisher, self._draw)
        self._standalone.observe(outputs, columns, outputs[..., 0].numel())

    def _draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        assert self._generator is not None
        like = self.layers[0].weight
        return fill_(torch.empty(shape, dtype=like.dtype, device=self._generator.device), kind, self._generator)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients and layer statistics."""
        self.base.zero_grad(set_to_none)
        self._standalone.clear()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimiser's groups; schedulers should be attached to the base."""
        return self.base.param_groups

    @property
    def state(self) -> dict[Any, Any]:
        """The base optimiser's state by parameter, and the preconditioner's by layer name."""
        return {**self.base.state, **self.layer_state}

    @property
    def oracle(self) -> TorchOracle | None:
        """The harness's counting oracle; None in somebody's own loop."""
        return self._oracle

    @oracle.setter
    def oracle(self, oracle: TorchOracle) -> None:
        self._oracle = oracle
        self._standalone.detach()

    def notes(self) -> list[str]:
        """Sentences for a record: what was not preconditioned, and what was skipped."""
        names = ", ".join(f"{name!r} ({why})" for name, why in self.unsupported.items())
        found = [self._unchanged(names)] if names else []
        if self.skipped:
            found.append(f"{self.skipped} of {self.steps} steps skipped: the curvature was not finite")
        return found

    def detach(self) -> None:
        """Take the hooks off the model."""
        self._standalone.detach()

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, the base optimiser's state included."""
        generator = None if self._generator is None else self._generator.get_state()
        return {"base": self.base.state_dict(), "layers": {name: dict(s) for name, s in self.layer_state.items()},
                "steps": self.steps, "skipped": self.skipped, "generator": generator}  # fmt: skip

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            CurvebenchError: it belongs to a model with other layers.
        """
        weights = {layer.name: layer.weight for layer in self.layers}
        if unknown := sorted(set(state_dict["layers"]) - set(weights)):
            raise CurvebenchError(f"{self._name}: the state has layers that this model has not: {', '.join(unknown)}")
        self.base.load_state_dict(state_dict["base"])
        self.layer_state = {
            name: {k: v.to(weights[name].device, copy=True) if isinstance(v, Tensor) else v for k, v in entry.items()}
            for name, entry in state_dict["layers"].items()
        }
        self.steps, self.skipped = state_dict["steps"], state_dict["skipped"]
        if state_dict["generator"] is not None:
            self._generator = self._generator or torch.Generator(self.layers[0].weight.device)
            self._generator.set_state(state_dict["generator"].cpu())
        self._standalone.enabled = self._wants_statistics()

    def _saw(self, loss: Callable[[], Any]) -> None:
        """In the harness: the loss that came with the gradient, for a subclass that wants it."""

    def _tally(self, factors: int, inverses: int) -> None:
        """In the harness: enter updates of factors and of inverses into the ledger."""
        if self._oracle is not None:
            self._oracle.tally(factors=factors, inverses=inverses)

    # -- what a subclass says ------------------------------------------------------------------------------------------

    def _wants_statistics(self) -> bool:
        """Whether the step to come needs layer statistics."""
        raise NotImplementedError

    def _update(self, statistics: Mapping[str, LayerPasses]) -> bool:
        """Fold the statistics into the state; False, and nothing changed, if they are not finite."""
        raise NotImplementedError

    def _apply(self) -> None:
        """Write the new gradients."""
        raise NotImplementedError

    def _gradients(self) -> Iterator[tuple[Layer, Tensor]]:
        """The layers that have a gradient in this step, with it as a matrix."""
        for layer in self.layers:
            if (W := layer.matrix()) is not None:
                yield layer, W

    def _statistics(self, point: Point | StandaloneLayersPoint) -> dict[str, LayerPasses]:
        known = {layer.name for layer in self.layers}
        if isinstance(point, Point):
            found = {name: LayerPasses.of(entry) for name, entry in point.layer_statistics(self.fisher).items()}
        else:
            found = point.layer_statistics()
        found = {name: entry for name, entry in found.items() if name in known}
        if not found:
            how = "run the model's forward and loss.backward() after the constructor, outside torch.compile"
            if self.fisher != "empirical":
                how = "call opt.observe(outputs, likelihood) between the model's forward and loss.backward()"
            raise CurvebenchError(f"{self._name}: fisher = {self.fisher!r}: no layer was seen in this step: {how}")
        for name, entry in found.items():
            if self.shared == "refuse" and len(entry.inputs) > entry.passes:
                raise CurvebenchError(
                    f"{self._name}: {shown(name)} was used {len(entry.inputs) // entry.passes} times in one forward: "
                    "its gradient is a sum over uses; pass shared='expand' to treat them as positions of a sequence, "
                    f"or skip=[{name!r}] to leave it to the base optimiser"
                )
        return found


def _overlaps(g: Tensor) -> bool:
    """Whether writing into a gradient would write elsewhere too, as with one that autograd expanded."""
    return any(stride == 0 and size > 1 for stride, size in zip(g.stride(), g.shape, strict=True))
