"""What an operation costs: flops by leading terms and bytes touched, the same formulas for ATen and for the jaxpr.

A multiplication and an addition are one flop each; an elementary function (exp, sqrt, tanh) is one flop per element; a
comparison of a sort is one flop. Bytes are those of each operation's inputs and outputs, as if nothing were fused or
kept in cache: an upper bound of traffic that is the same for both frameworks. Factorisations are counted as in Golub
and Van Loan, Matrix Computations, 4th edition: Cholesky n^3/3 (4.2), LU 2n^3/3 (3.2), Householder QR 2n^2(m - n/3)
(5.2) and as much again to form Q, symmetric eigenproblem 4n^3/3 for values and 9n^3 with vectors (8.3), SVD
4m^2 n + 8m n^2 + 9n^3 with both bases (8.6).

The frameworks' own counters will not do: torch's shows eigh, inverse, matvec, elementwise operations and optimiser
steps as 0, jax's counts the body of a loop once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np


@dataclass
class Work:
    """Flops and bytes of a piece of program, and the operations that no formula here knows.

    Args:
        flops: floating-point operations; an unknown operation is entered as one flop per output element.
        bytes: bytes of inputs and outputs of all operations.
        unknown: how often each unknown operation occurred, by name.
    """

    flops: float = 0.0
    bytes: float = 0.0
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, other: Work, times: float = 1.0) -> None:
        """Add ``times`` repetitions of ``other``."""
        self.flops += times * other.flops
        self.bytes += times * other.bytes
        for name, n in other.unknown.items():
            self.unknown[name] += max(1, int(n * times))


def product(shape: Iterable[int]) -> int:
    """Number of elements of a shape."""
    return math.prod(int(n) for n in shape)


def names(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


def gemm(m: float, k: float, n: float, batch: float = 1) -> float:
    """``[m, k] @ [k, n]``, ``batch`` times; a matvec has n = 1, an outer product k = 1."""
    return 2.0 * batch * m * k * n


@lru_cache(maxsize=4096)
def taps(outputs: int, inputs: int, kernel: int, stride: int, dilation: int, before: int, spread: int = 1) -> int:
    """Pairs of output and kernel positions of one dimension that meet an input: not padding, not a dilated zero.

    Output ``o`` and tap ``k`` meet the input ``(o stride + k dilation - before) / spread`` where that is whole and in
    ``[0, inputs)``. A convolution and its two gradients have the same pairs.

    Args:
        outputs: output positions.
        inputs: input positions, without the zeros between them.
        kernel: taps.
        stride: of the outputs.
        dilation: of the kernel.
        before: padding before the first input; negative where it is cut.
        spread: dilation of the inputs, 1 for none.
    """
    place = np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation - before
    return int(np.count_nonzero((place % spread == 0) & (place >= 0) & (place // spread < inputs)))


def convolution(maps: float, channels_per_group: float, taps: float) -> float:
    """A convolution of ``maps`` (batch times output channels) with that many :func:`taps`, over all dimensions.

    Its two gradients cost the same each.
    """
    return 2.0 * maps * channels_per_group * taps


def cholesky(n: float) -> float:
    """``A = L L'``."""
    return n**3 / 3


def lu(m: float, n: float) -> float:
    """``P A = L U`` of ``[m, n]``."""
    k = min(m, n)
    return 2 * (m * n * k - (m + n) * k**2 / 2 + k**3 / 3)


def triangular_solve(n: float, columns: float) -> float:
    """``T X = B`` with ``B [n, columns]``."""
    return n * n * columns


def inverse(n: float) -> float:
    """``A^-1`` by LU."""
    return 2.0 * n**3


def qr(m: float, n: float) -> float:
    """Householder's factorisation of ``[m, n]``."""
    k = min(m, n)
    return 2 * k * k * (max(m, n) - k / 3)


def eigh(n: float, vectors: bool = True) -> float:
    """Symmetric eigenproblem."""
    return 9.0 * n**3 if vectors else 4.0 * n**3 / 3


def eig(n: float) -> float:
    """Unsymmetric eigenproblem with vectors (Golub and Van Loan 7.5)."""
    return 25.0 * n**3


def svd(m: float, n: float, vectors: bool = True) -> float:
    """Singular values, and both bases."""
    long, short = max(m, n), min(m, n)
    if vectors:
        return 4 * long**2 * short + 8 * long * short**2 + 9 * short**3
    return 4 * long * short**2 - 4 * short**3 / 3


def fft(n: float, length: float) -> float:
    """Transforms of ``length`` over ``n`` elements in all."""
    return 5.0 * n * math.log2(max(length, 2))


def sort(n: float, length: float) -> float:
    """Comparisons of sorting ``n`` elements in rows of ``length``."""
    return n * math.log2(max(length, 2))


def lstm(steps: float, batch: float, inputs: float, hidden: float) -> float:
    """One layer over ``steps`` positions: four gates of ``[inputs + hidden] -> hidden``, then the cell.

    Elementwise: sum of the two products and two biases of four gates (12), four gate functions, ``c = f c + i g`` (3),
    ``h = o tanh(c)`` (2).
    """
    return steps * batch * (gemm(1, inputs + hidden, 4 * hidden) + 21 * hidden)


LAYER_NORM, LAYER_NORM_BACKWARD = 8.0, 13.0
"""Flops per element of a normalisation: mean 1, centred square sum 3, centre and scale 2, affine 2. Backward
``dx = (g w - mean(g w) - x^ mean(g w x^)) / sigma``: x^ 2, g w 1, two sums 3, the bracket 3, scale 1; dw 2, db 1."""

WEIGHTS: dict[str, float] = {
    "addcmul": 3, "addcdiv": 3, "lerp": 3, "addmv": 2, "hypot": 4, "logaddexp": 5, "cumsum": 1, "logsumexp": 4,
    "softmax": 5, "log_softmax": 5, "softmax_backward_data": 4, "log_softmax_backward_data": 4,
    "gelu": 5, "gelu_backward": 9, "silu": 3, "silu_backward": 6, "sigmoid_backward": 3, "tanh_backward": 3,
    "softplus": 3, "softplus_backward": 4, "log_sigmoid_forward": 4, "log_sigmoid_backward": 4,
    "var": 4, "var_mean": 4, "std": 5, "linalg_vector_norm": 2, "mse_loss": 3, "mse_loss_backward": 3,
    "native_dropout": 2, "native_dropout_backward": 2, "binary_cross_entropy_with_logits": 6,
    "_fused_sgd": 4, "_fused_adam": 14, "_fused_adamw": 15, "_fused_adagrad": 6,
}  # fmt: skip
"""Flops per element of operations that do more than one thing to it; everything else elementwise is 1.
``_fused_adam``: m 3, v 4, two corrections 2, root 1, eps 1, quotient 1, step 2; adamw: and the decay."""
