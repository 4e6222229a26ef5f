"""The optimiser's side of the oracle in torch: what optimisers that pull from an oracle have in common."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.oracle.standalone_torch import AutogradOracle
from curvebench.oracle.torch import TorchOracle

_LOG = logging.getLogger("curvebench.methods")


class OracleOptimizer(torch.optim.Optimizer):
    """An optimiser that asks an oracle: the counting one that the harness puts into ``oracle``, else its own closure.

    Args:
        params: parameters or groups, of floating dtype, each once.
        defaults: options of a group.
        generator: source of the noise when used alone; by default an own one, seeded from torch's global seed at the
            first step. The global generator is never drawn from.
    """

    def __init__(
        self, params: Iterable[Any], defaults: dict[str, Any], generator: torch.Generator | None = None
    ) -> None:
        self.oracle: TorchOracle | None = None
        self._generator = generator
        self._steps = 0
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise if an option of the group is outside its range; a class with options overrides this."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; a bad option is refused and nothing is added.

        Raises:
            TypeError: a parameter is not of floating dtype, or sparse.
            CurvebenchError: a parameter is given twice.
            HyperparameterError: an option that all groups share is given for one.
        """
        super().add_param_group(param_group)
        group, name = self.param_groups[-1], type(self).__name__
        try:
            for p in group["params"]:
                if not p.is_floating_point():
                    raise TypeError(f"{name}: a parameter has dtype {p.dtype}: must be floating")
            if len({id(p) for p in group["params"]}) < len(group["params"]):
                raise CurvebenchError(f"{name}: a parameter is given twice: tied weights count once")
            self.check_group(group)
            for p in group["params"]:
                if p.layout != torch.strided:
                    raise TypeError(f"{name}: a parameter has layout {p.layout}: must be dense (torch.strided)")
            shared = inspect.signature(type(self).__init__).parameters.keys() - self.defaults.keys() - {"params"}
            for word in sorted(shared & param_group.keys()):
                raise HyperparameterError(
                    f"{name}: {word} = {param_group[word]!r} in a group: all parameters share one: give it to {name}"
                )
        except Exception:
            self.param_groups.pop()
            raise

    def everything(self) -> list[Tensor]:
        """All parameters, group after group."""
        return [p for group in self.param_groups for p in group["params"]]

    def ask(self, closure: Callable[[], Any] | None) -> TorchOracle | AutogradOracle:
        """This step's oracle."""
        if self.oracle is not None:
            return self.oracle
        if self._generator is None:
            self._generator = torch.Generator(self.everything()[0].device).manual_seed(torch.initial_seed())
        return AutogradOracle(self.everything(), closure, self._generator)

    def fresh_seed(self, oracle: TorchOracle | AutogradOracle, name: str) -> int:
        """32 bits of a stream of this step, to seed noise that is drawn again in later steps instead of being kept."""
        bytes_ = oracle.stream(name).draw("uniform", (4,)).tolist()  # 8 bits each: exact in half precision too
        return sum(int(u * 256) << 8 * i for i, u in enumerate(bytes_))

    def by_group(self, values: Sequence[Tensor]) -> Iterator[tuple[dict[str, Any], list[Tensor], list[Tensor]]]:
        """Tensors of all parameters, cut into ``(group, its parameters, their tensors)``; no empty ones."""
        start, all_of_them = 0, set(self.everything())
        for group in self.param_groups:
            members = [p for p in group["params"] if p in all_of_them]
            stop = start + len(members)
            if members:  # torch's functions on lists take no empty ones
                yield group, members, list(values[start:stop])
            start = stop

    def slots(self, parameters: Sequence[Tensor], name: str, value: float = 0.0) -> list[Tensor]:
        """State tensors shaped like the parameters, filled with ``value`` when first asked for."""
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.full_like(p, value, requires_grad=False)
        return [self.state[p][name] for p in parameters]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has: everything but hooks, schedulers and the harness; torch keeps three names."""
        kept = {k: v for k, v in vars(self).items() if k != "step" and not k.startswith("_optimizer_")}
        return {**kept, "oracle": None}

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, its generator included, so that a run continues bit-identically."""
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
                self._generator = torch.Generator(self.everything()[0].device)
            self._generator.set_state(saved.cpu())


class LossOptimizer(OracleOptimizer):
    """An optimiser that asks for losses or directional derivatives, so that ``p.grad`` cannot say what is trained.

    Frozen parameters (``requires_grad`` off) are left alone, unless all are frozen: then all are trained, since no
    gradient is needed.

    A step whose estimate is not finite, because a loss was not, changes no parameter and no moment and is counted in
    ``skipped``.
    """

    def __init__(
        self, params: Iterable[Any], defaults: dict[str, Any], generator: torch.Generator | None = None
    ) -> None:
        self.skipped = 0
        super().__init__(params, defaults, generator)

    def usable(self, estimate: float | Sequence[Tensor]) -> bool:
        """Whether a slope or a gradient is finite; if not, the caller leaves the step, which is counted and said."""
        if isinstance(estimate, float):
            finite = math.isfinite(estimate)
        else:
            sizes = torch._foreach_norm([g for g in estimate if g.numel()], float("inf"))
            finite = all(map(math.isfinite, torch.stack([s.to(sizes[0]) for s in sizes]).tolist()))
        if finite:
            return True
        self.skipped += 1
        if self.skipped == 1:
            _LOG.warning("%s: a step is skipped: a loss is not finite", type(self).__name__)
        return False

    def notes(self) -> list[str]:
        """Sentences for a record: how many steps were skipped."""
        return [f"{self.skipped} steps skipped: a loss was not finite"] if self.skipped else []

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state and the count of skipped steps."""
        return super().state_dict() | {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        skipped = rest.pop("skipped", 0)
        super().load_state_dict(rest)
        self.skipped = skipped

    def everything(self) -> list[Tensor]:
        """The parameters that are trained, group after group."""
        given = super().everything()
        return [p for p in given if p.requires_grad] or given

    def owners(self) -> list[dict[str, Any]]:
        """The group of each of :meth:`everything`."""
        return [group for group, members, _ in self.by_group(self.everything()) for _ in members]
