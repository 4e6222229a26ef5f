"""The layers of a model that a layer-wise preconditioner understands, and why it leaves the others alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.geometry import Geometry
from curvebench.kernels.kronecker_torch import geometry

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Layers whose few parameters nobody expects to be preconditioned: no warning for these."""


class Layer(NamedTuple):
    """A layer that is preconditioned; ``bias`` only if it is trained."""

    name: str
    geometry: Geometry | None
    weight: Tensor
    bias: Tensor | None

    def matrix(self) -> Tensor | None:
        """The gradient ``W [o, i]``, the bias' as its last column; None if the loss does not depend on the layer."""
        if self.weight.grad is None or (self.bias is not None and self.bias.grad is None):
            return None
        W = self.weight.grad.flatten(1)
        return W if self.bias is None else torch.cat([W, self.bias.grad[:, None]], 1)  # type: ignore[index]  # above

    def write(self, P: Tensor, scale: float = 1.0) -> None:
        """Replace the gradient by ``scale P [o, i]``."""
        n = self.weight[0].numel()
        assert self.weight.grad is not None
        torch.mul(P[:, :n].reshape(self.weight.shape), scale, out=self.weight.grad)
        if self.bias is not None and self.bias.grad is not None:
            torch.mul(P[:, n], scale, out=self.bias.grad)


def shown(name: str) -> str:
    """A layer's name in a message."""
    return repr(name) if name else "the model itself"


def find_layers(
    method: str, model: nn.Module, base: torch.optim.Optimizer, skip: Sequence[str]
) -> tuple[list[Layer], dict[str, str]]:
    """The layers to precondition, and the others with parameters: name -> why not.

    Raises:
        HyperparameterError: ``skip`` names a module that is not there.
        CurvebenchError: tied weights, or no layer is left.
        TypeError: a weight is not floating.
    """
    modules = dict(model.named_modules())
    if unknown := sorted(set(skip) - set(modules)):
        raise HyperparameterError(f"{method}: skip: the model has no module named {', '.join(map(repr, unknown))}")
    optimised = {p for group in base.param_groups for p in group["params"]}
    inside_attention = {f"{name}.out_proj" if name else "out_proj" for name, module in modules.items()
                        if isinstance(module, nn.MultiheadAttention)}  # fmt: skip
    found: list[Layer] = []
    unsupported: dict[str, str] = {}
    owners: dict[Tensor, list[str]] = {}
    for name, module in modules.items():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        for p in own:
            owners.setdefault(p, []).append(name)
        if not own:
            continue
        reason = _reason(name, module, skip, inside_attention)
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if not reason and not (isinstance(weight, Tensor) and weight.requires_grad and weight in optimised):
            reason = "its weight is not trained by the base optimiser"
        if reason:
            unsupported[name] = reason
            continue
        assert isinstance(weight, Tensor)
        if not weight.is_floating_point():
            raise TypeError(f"{method}: the weight of {shown(name)} has dtype {weight.dtype}: must be floating")
        trained = isinstance(bias, Tensor) and bias.requires_grad and bias in optimised
        found.append(Layer(name, geometry(module), weight, bias if trained else None))
    names = {layer.name for layer in found}
    for sharing in owners.values():
        if len(sharing) > 1 and (tied := names & set(sharing)):
            raise CurvebenchError(
                f"{method}: tied weights: {' and '.join(map(shown, sharing))} share a parameter, whose gradient "
                f"belongs to no single layer: pass skip={sorted(tied)} to leave it to the base optimiser"
            )
    if not found:
        raise CurvebenchError(f"{method}: the model has no Linear or Conv2d layer to precondition")
    return found, unsupported


def _reason(name: str, module: nn.Module, skip: Sequence[str], inside_attention: set[str]) -> str:
    if name in skip:
        return f"{type(module).__name__}, skipped on request"
    if name in inside_attention:
        return "the output projection of nn.MultiheadAttention, which is never called as a layer"
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return type(module).__name__
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return f"Conv2d with groups = {module.groups}"
    return ""
