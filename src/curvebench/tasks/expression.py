"""Twins from one expression: a function of named parameters written once, for torch and jax.

``expression(xp, p, c, x) -> outputs [batch, ...]`` gets the framework's namespace ``xp`` (``torch`` or ``jax.numpy``,
of which it may use the names that both have: ``tanh``, ``einsum``, ``linalg.solve``, ...), its parameters ``p`` and its
constants ``c`` by name, and a batch of inputs. Both twins then do the same arithmetic by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

Arrays = Mapping[str, npt.NDArray[np.float64]]
Expression = Callable[[Any, Mapping[str, Any], Mapping[str, Any], Any], Any]


def torch_expression(expression: Expression, parameters: Arrays, constants: Arrays | None = None) -> nn.Module:
    """A module whose parameters have the names and shapes of ``parameters`` and whose forward is the expression."""
    import torch
    from torch import nn

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in parameters.items():
                self.register_parameter(name, nn.Parameter(torch.zeros(value.shape)))
            for name, value in (constants or {}).items():
                self.register_buffer(f"constant_{name}", torch.tensor(value), persistent=False)

        def forward(self, inputs: torch.Tensor) -> Any:
            fixed = {name: getattr(self, f"constant_{name}") for name in constants or {}}
            return expression(torch, dict(self.named_parameters()), fixed, inputs)

    return Module()


def jax_expression(expression: Expression, constants: Arrays | None = None) -> Callable[[bool], Apply]:
    """The twin of :func:`torch_expression`."""

    def build(train: bool) -> Apply:
        import jax.numpy as jnp

        def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
            kind = next(iter(params.values())).dtype
            fixed = {name: jnp.asarray(value, kind) for name, value in (constants or {}).items()}
            return expression(jnp, params, fixed, inputs), {}

        return apply

    return build
