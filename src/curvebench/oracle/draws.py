"""Random probes as NumPy Philox streams: the same bits for torch and jax, used by tests and ``draws = "reference"``.

A *stream* is named; opening it rewinds it to its start for this step, and draws within it follow one another. So a
seed-replay method opens the same stream again instead of storing its noise, and two frameworks that draw the same
shapes in the same order see the same numbers.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from curvebench.spec import seed

Kind: TypeAlias = Literal["normal", "rademacher", "uniform"]
KINDS: tuple[str, ...] = get_args(Kind)


class ReferenceStream:
    """One named stream of one step, drawn by ``numpy.random.Philox`` keyed by (run seed, step, stream name).

    Args:
        run_seed: the method's noise seed, a function of (task, method, seed block).
        step: optimiser step, from 0.
        name: name of the stream.
    """

    def __init__(self, run_seed: int, step: int, name: str) -> None:
        self._rng = np.random.Generator(np.random.Philox(seed("draw", run_seed, step, name)))

    def draw(self, kind: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return float64 draws: ``normal`` N(0, 1), ``rademacher`` +-1, ``uniform`` [0, 1).

        Raises:
            ValueError: the kind is unknown.
        """
        if kind == "normal":
            return self._rng.standard_normal(shape)
        if kind == "rademacher":
            return self._rng.integers(0, 2, shape).astype(np.float64) * 2 - 1
        if kind == "uniform":
            return self._rng.random(shape)
        raise unknown_kind(kind)


def unknown_kind(kind: Any) -> ValueError:
    """The error for a kind of draw that does not exist."""
    return ValueError(f"kind of draw = {kind!r}: must be one of {', '.join(KINDS)}")
