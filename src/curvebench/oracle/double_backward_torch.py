"""Kernels without a second derivative: attention is switched to one that has it, the rest refused with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from curvebench.errors import CurvebenchError
from curvebench.spec import Query

SECOND_DERIVATIVES = frozenset({Query.HVP, Query.GGNVP, Query.JVP})
"""Queries that differentiate a backward, or use forward mode: fused attention kernels implement neither."""

ATTENTION_NOTE = (
    "attention ran with the math kernel (sdpa_kernel(SDPBackend.MATH)): the fused kernels have no double backward "
    "and no forward mode; it keeps the [batch, heads, length, length] weights"
)
_ATTENTION_REMEDY = (
    "the model's attention kernel has no double backward: run its forward under "
    "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), or pass step() a closure, which is run so"
)
_COMPILE_REMEDY = (
    "a model under torch.compile has no double backward: pass the model as it was before torch.compile, "
    "or compile it with backend='eager'"
)


def math_attention() -> AbstractContextManager[Any]:
    """Inside, attention runs as matrix products and a softmax, which have derivatives of every order."""
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def explained() -> Iterator[None]:
    """Turn torch's complaint about a missing second derivative into a sentence that says what to do.

    Raises:
        CurvebenchError: in place of that complaint; other errors pass.
    """
    try:
        yield
    except RuntimeError as error:  # NotImplementedError, of forward mode, is one
        text = str(error)
        if "attention" in text and "implement" in text:
            raise CurvebenchError(_ATTENTION_REMEDY) from error
        if "double backward" in text and ("compile" in text or "aot_autograd" in text):
            raise CurvebenchError(_COMPILE_REMEDY) from error
        raise


class AttentionSwitch:
    """Switches a model's attention for second derivatives, where it has any.

    The first forward looks whether an attention operation is met; a model without one pays nothing afterwards.
    """

    def __init__(self) -> None:
        self.seen: bool | None = None
        """Whether an attention operation was met; None before the first forward."""

    def __call__(self) -> AbstractContextManager[Any]:
        """The context of a forward whose graph is differentiated twice."""
        if self.seen is None:
            return self._looking()
        return math_attention() if self.seen else nullcontext()

    @contextmanager
    def _looking(self) -> Iterator[None]:
        watch = _Watch()
        with math_attention(), watch:
            yield
        self.seen = watch.seen

    def notes(self) -> list[str]:
        """A sentence for the record if attention was switched."""
        return [ATTENTION_NOTE] if self.seen else []


class _Watch(TorchFunctionMode):
    """Sees the functions that a forward calls."""

    seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "attention" in getattr(func, "__name__", ""):  # what F.multi_head_attention_forward calls is hidden
            self.seen = True
        return func(*args, **(kwargs or {}))
