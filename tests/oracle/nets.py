"""A small network under cross-entropy, with curvature from functional derivatives that the package does not use."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curvebench.spec import Query

F64 = torch.float64


def leaf(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=F64).requires_grad_()


class Net:
    """A tanh network with three outputs under cross-entropy; ``closure()`` returns ``(loss, outputs)``."""

    def __init__(self, dtype: torch.dtype = F64, inputs: int = 20) -> None:
        rng = np.random.default_rng(1)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).to(dtype)
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.tensor(rng.standard_normal(p.shape)))
        self.x = torch.tensor(rng.standard_normal((inputs, 4)), dtype=dtype)
        self.y = torch.tensor(rng.integers(0, 3, inputs))

    def closure(self) -> tuple[Tensor, Tensor]:
        outputs = self.model(self.x)
        return nn.functional.cross_entropy(outputs, self.y), outputs

    def vector(self) -> np.ndarray:
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()]).numpy().copy()

    def at(self, vector: np.ndarray) -> float:
        """The loss at other parameters."""
        other = copy.deepcopy(self.model)
        nn.utils.vector_to_parameters(torch.tensor(vector), other.parameters())
        return float(nn.functional.cross_entropy(other(self.x), self.y).detach())

    def curvature(self, query: Query) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian or Gauss-Newton matrix, from functional derivatives that the package does not use."""
        shapes = [p.shape for p in self.model.parameters()]
        names = [name for name, _ in self.model.named_parameters()]
        v = torch.tensor(self.vector())

        def outputs(v: Tensor) -> Tensor:
            parts = torch.split(v, [s.numel() for s in shapes])
            params = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
            return torch.func.functional_call(self.model, params, (self.x,))

        def loss(o: Tensor) -> Tensor:
            return nn.functional.cross_entropy(o, self.y)

        g = torch.func.grad(lambda v: loss(outputs(v)))(v)
        if query is Query.HVP:
            return g.numpy(), torch.func.hessian(lambda v: loss(outputs(v)))(v).numpy()
        J = torch.func.jacfwd(outputs)(v).reshape(-1, len(v))
        curved = torch.func.hessian(lambda o: loss(o.view(-1, 3)))(outputs(v).reshape(-1))
        return g.numpy(), (J.T @ curved @ J).numpy()
