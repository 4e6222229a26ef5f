"""Whose gradients make a Fisher matrix of the task's mean loss: vectors to pull back from the model's outputs.

The criteria are means over their terms. ``gaussian`` (``(o - y)^2 / 2``) and ``bernoulli`` have a term for each output
number; ``categorical`` has one for each target that is not negative (a negative one is ignored, as torch's
``ignore_index``), and its classes lie in the outputs' dimension that the targets lack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.kronecker_torch import fisher_columns

Draw = Callable[[str, tuple[int, ...]], Tensor]


def pulled_vectors(
    outputs: Tensor, targets: Tensor, likelihood: str, fisher: str, draw: Draw
) -> tuple[Iterator[Tensor], int]:
    """Vectors shaped like the outputs, and the number ``T`` of terms of the mean loss.

    With ``J`` the Jacobian of the outputs, ``sum_c (J' v_c)(J' v_c)' / T`` over terms is the Gauss-Newton matrix
    (``fisher = 'type-2'``), or has it as its expectation (``'mc'``).

    Raises:
        CurvebenchError: categorical outputs whose classes cannot be told from the targets' shape.
    """
    if likelihood != "categorical":
        return fisher_columns(outputs, likelihood, fisher, draw), outputs.numel()
    dim = _class_dimension(tuple(outputs.shape), tuple(targets.shape))
    counted = (targets >= 0).unsqueeze(-1)
    columns = fisher_columns(outputs.movedim(dim, -1), likelihood, fisher, draw)
    return ((column * counted).movedim(-1, dim) for column in columns), int(counted.sum())


def _class_dimension(outputs: tuple[int, ...], targets: tuple[int, ...]) -> int:
    """Where the classes lie: last, or second as in ``torch.nn.functional.cross_entropy``."""
    fits = {dim for dim in (1, len(outputs) - 1) if dim > 0 and outputs[:dim] + outputs[dim + 1 :] == targets}
    if len(fits) != 1:
        raise CurvebenchError(
            f"outputs {list(outputs)} and targets {list(targets)}: the classes must be the second or the last "
            "dimension of the outputs, and the only one that the targets lack"
        )
    return fits.pop()
