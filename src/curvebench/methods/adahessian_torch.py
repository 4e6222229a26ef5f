"""AdaHessian in torch (Yao et al. 2021, arXiv 2006.00719): Adam with a Hutchinson estimate of the Hessian's diagonal.

Per step t with gradient g and one Rademacher probe z: ``D = average(|H z|)``;
``m = b1 m + (1-b1) g``;  ``v = b2 v + (1-b2) D^2``;
``theta <- theta - lr ( m/(1-b1^t) / ((v/(1-b2^h))^(k/2) + eps) + weight_decay theta )``, h counting Hessians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.methods.validation import check
from curvebench.oracle.standalone_torch import AutogradOracle
from curvebench.oracle.torch import TorchOracle
from curvebench.spec import Query

Averaging = str | tuple[int, int, int, int]
RULES = ("conv", "row", "none")
_SECOND = frozenset({Query.GRADIENT, Query.HVP})
_FIRST = frozenset({Query.GRADIENT})


class AdaHessian(torch.optim.Optimizer):
    """AdaHessian.

    Alone, call ``loss.backward(create_graph=True)`` before ``step()`` on Hessian steps (every ``hessian_every``-th,
    from the first), or pass a closure that returns the loss. Set ``zero_grad()`` (to None) after each step: gradients
    with a graph are reference cycles.

    Args:
        params: parameters or groups, of floating dtype.
        lr: step size, > 0.
        betas: decay rates ``(b1, b2)`` of the two moments, each in [0, 1).
        eps: added outside the root, > 0.
        weight_decay: decoupled decay, multiplied by lr, >= 0.
        hessian_power: ``k`` in (0, 1].
        averaging: ``'conv'``: mean over the kernel of 4-D (and the last dimension of 3-D) tensors, others as they are
            (the image-classification code); ``'row'``: also whole rows of 2-D tensors; ``'none'``; or block sizes
            ``(b1, b2, b3, b4)`` by number of dimensions: consecutive blocks of the flattened tensor, -1: the row rule.
        hessian_every: a new Hessian every so many steps; between them ``v`` stays as it is and its bias correction
            counts Hessians, not steps. A parameter whose first gradient comes between them waits for the next Hessian.
        generator: source of the probes; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range, or block sizes that do not divide a parameter.
        MissingGraphError: a Hessian step without a graph.

    Differs from the paper: like all the authors' code, absolute values are averaged, not signed ones (eq. 10).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.15,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        hessian_power: float = 1.0,
        averaging: Averaging = "conv",
        hessian_every: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check("AdaHessian", "hessian_every", hessian_every, "[1, inf)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "hessian_power": hessian_power, "averaging": averaging})  # fmt: skip
        self.hessian_every = hessian_every
        self.oracle: TorchOracle | None = None
        self._generator = generator
        self._steps = 0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; a bad option is refused and nothing is added."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    def _all(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss when it is known."""
        second = self._steps % self.hessian_every == 0
        if self.oracle is None and self._generator is None:
            self._generator = torch.Generator(self._all()[0].device).manual_seed(torch.initial_seed())
        oracle = self.oracle or AutogradOracle(self._all(), closure, self._generator)
        point = oracle.at(needs=_SECOND if second else _FIRST)
        gradients = [g.detach() for g in point.gradient()]
        curvature: list[Tensor] = []
        if second:
            stream = oracle.stream("hutchinson")
            probes = [stream.draw("rademacher", tuple(p.shape)) for p in oracle.parameters]
            curvature = [hz.detach() for hz in point.hvp(probes)]
        position = {p: i for i, p in enumerate(oracle.parameters)}
        for group in self.param_groups:
            members = [p for p in group["params"] if p in position]
            rule = group["averaging"]
            diagonal = [average(curvature[position[p]].abs(), rule) for p in members] if second else []
            self._update(group, members, [gradients[position[p]] for p in members], diagonal)
        self._steps += 1
        return point.loss()

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], diagonal: list[Tensor]) -> None:
        ages: dict[tuple[int, int], list[int]] = {}  # all of one age, unless some parameters had no gradient at times
        for i, p in enumerate(params):
            state = self.state[p]
            if not state:
                state.update(step=0, hessians=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
            state["step"] += 1
            state["hessians"] += bool(diagonal)
            ages.setdefault((state["step"], state["hessians"]), []).append(i)
        for (t, h), rows in ages.items():
            lists = (params, grads, diagonal)
            self._move(group, t, h, *([values[i] for i in rows] if values else [] for values in lists))

    def _move(
        self, group: dict[str, Any], t: int, h: int, params: list[Tensor], grads: list[Tensor], diagonal: list[Tensor]
    ) -> None:
        states = [self.state[p] for p in params]
        (b1, b2), lr, power = group["betas"], group["lr"], group["hessian_power"]
        m, v = [s["m"] for s in states], [s["v"] for s in states]
        torch._foreach_lerp_(m, grads, 1 - b1)
        if diagonal:
            torch._foreach_mul_(v, b2)
            torch._foreach_addcmul_(v, diagonal, diagonal, 1 - b2)
        if h == 0:
            return  # no curvature of these yet, and dividing by eps alone would throw them far away
        scale = torch._foreach_div(v, 1 - b2**h)
        if power == 1.0:
            torch._foreach_sqrt_(scale)
        else:
            torch._foreach_pow_(scale, power / 2)
        torch._foreach_add_(scale, group["eps"])
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(params, m, scale, -lr / (1 - b1**t))

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, its probes' generator included, so that a run continues bit-identically."""
        state = super().state_dict()
        state["generator"] = None if self._generator is None else self._generator.get_state()
        state["steps"] = self._steps
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        saved = rest.pop("generator", None)
        self._steps = rest.pop("steps", 0)
        super().load_state_dict(rest)
        if saved is not None:
            if self._generator is None:
                self._generator = torch.Generator(self._all()[0].device)
            self._generator.set_state(saved.cpu())


def _check_group(group: dict[str, Any]) -> None:
    """Refuse options outside their range, and parameters that they do not fit."""
    allowed = {"lr": "(0, inf)", "eps": "(0, inf)", "weight_decay": "[0, inf)", "hessian_power": "(0, 1]"}
    for name, interval in allowed.items():
        check("AdaHessian", name, group[name], interval)
    for name, beta in zip(("beta1", "beta2"), group["betas"], strict=True):
        check("AdaHessian", name, beta, "[0, 1)")
    if isinstance(group["averaging"], str):
        check("AdaHessian", "averaging", group["averaging"], RULES)
    for parameter in group["params"]:
        if not parameter.is_floating_point():
            raise TypeError(f"AdaHessian: a parameter has dtype {parameter.dtype}: must be floating")
        if not isinstance(group["averaging"], str):
            average(torch.empty_like(parameter, device="meta"), group["averaging"])


def average(diagonal: Tensor, rule: Averaging) -> Tensor:
    """Spatial averaging of ``|H z|`` of any shape; the result has the same shape.

    Raises:
        HyperparameterError: a block size does not divide the number of elements.
    """
    n = diagonal.dim()
    if isinstance(rule, tuple):
        block = rule[min(n, 4) - 1] if n else 1
        if block == 1:
            return diagonal
        if block != -1:
            check("AdaHessian", f"averaging (block of {n}-D)", block, "[1, inf)")
            check("AdaHessian", f"averaging (elements over block of {n}-D)", diagonal.numel() % block, "[0, 0]")
            blocks = diagonal.reshape(-1, block)
            return blocks.mean(1, keepdim=True).expand_as(blocks).reshape(diagonal.shape)
        rule = "row"
    over = {3: (2,), 4: (2, 3)} if rule == "conv" else {2: (1,), 3: (2,), 4: (2, 3)} if rule == "row" else {}
    return diagonal.mean(over[n], keepdim=True).expand_as(diagonal) if n in over else diagonal
