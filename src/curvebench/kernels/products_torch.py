"""Products of curvature matrices with vectors, from graphs that a forward left behind; no matrix is formed.

``theta``: parameters in tensors of any shape, ``d`` numbers in all. ``f``: the objective; ``o [batch, ...]``: the
model's outputs, ``J`` their Jacobian in ``theta``; ``H_out`` the Hessian of the criterion in ``o``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def differentiate(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = True,
) -> tuple[Tensor, ...]:
    """``autograd.grad`` with zeros for inputs that the outputs do not depend on."""
    return torch.autograd.grad(outputs, inputs, vectors, retain_graph=retain_graph or create_graph,
                               create_graph=create_graph, allow_unused=True, materialize_grads=True)  # fmt: skip


def hessian_vector_product(
    gradient: Sequence[Tensor], parameters: Sequence[Tensor], vector: Sequence[Tensor]
) -> list[Tensor]:
    """``H v = d(g . v)/d theta`` by reverse over reverse, from a gradient that carries its graph.

    Costs one backward through the graph of forward and backward: about two gradients.

    Args:
        gradient: ``g``, one tensor per parameter; those without a graph are constant in theta and contribute nothing.
        parameters: the leaves ``theta``.
        vector: ``v``, shaped like the parameters.
    """
    live = [(g, v) for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
    if not live:
        return [torch.zeros_like(p) for p in parameters]
    return list(differentiate([g for g, _ in live], parameters, [v for _, v in live]))


def gauss_newton_vector_product(
    outputs: Tensor, parameters: Sequence[Tensor], vector: Sequence[Tensor], criterion: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """``J' H_out J v``: the generalised Gauss-Newton matrix of ``criterion(o(theta))`` times ``v``.

    ``J v`` is the derivative of ``u -> J'u`` (double vjp), so one forward serves: two backwards and one through the
    first of them, about three gradients.

    Args:
        outputs: ``o`` with its graph.
        parameters: the leaves ``theta``.
        vector: ``v``, shaped like the parameters.
        criterion: the loss ``[]`` as a function of outputs, twice differentiable.
    """
    with torch.enable_grad():
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = differentiate([outputs], parameters, [u], create_graph=True)
        live = [(g, v) for g, v in zip(pulled, vector, strict=True) if g.requires_grad]
        if not live:
            return [torch.zeros_like(p) for p in parameters]
        (pushed,) = differentiate([g for g, _ in live], [u], [v for _, v in live])
        free = outputs.detach().requires_grad_()
        (residual,) = differentiate([criterion(free)], [free], create_graph=True)
        curved = differentiate([residual], [free], [pushed])[0] if residual.requires_grad else torch.zeros_like(free)
        return list(differentiate([outputs], parameters, [curved]))


def on_vectors(
    product: Callable[[list[Tensor]], Sequence[Tensor]], like: Sequence[Tensor]
) -> Callable[[Tensor], Tensor]:
    """The same product on one vector ``[d]``: all tensors flattened, one after another.

    Args:
        product: takes and returns tensors of the parameters' shapes.
        like: the parameters.
    """
    sizes, shapes = [p.numel() for p in like], [p.shape for p in like]

    def flat(vector: Tensor) -> Tensor:
        pieces = [piece.view(shape) for piece, shape in zip(torch.split(vector, sizes), shapes, strict=True)]
        return torch.cat([out.reshape(-1) for out in product(pieces)])

    return flat
