"""Small networks in NumPy, forward and backward by hand: what the replays of the authors' rules run on.

Nothing here knows torch or curvebench. A layer's rows are ``a [rows, i]`` (positions of a convolution are rows, patches
in the order channel, row, column); ``W [o, i]`` holds the bias as its last column.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


@dataclass
class Layer:
    """A linear layer, or a convolution if ``kernel`` is given; followed by tanh unless it is the last."""

    W: Array
    bias: bool
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    velocity: Array | None = None
    state: dict[str, Array] = field(default_factory=dict)
    x: Array = field(default_factory=lambda: np.zeros(0))
    shape: tuple[int, ...] = ()
    out: Array = field(default_factory=lambda: np.zeros(0))

    def rows(self, x: Array) -> Array:
        """``[N, T, i]`` without the ones of the bias."""
        if self.kernel is None:
            return x.reshape(len(x), -1, x.shape[-1])
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.padding
        x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        height, width = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
        out = np.zeros((len(x), height * width, x.shape[1] * kh * kw), x.dtype)
        for r in range(height):
            for c in range(width):
                out[:, r * width + c] = x[:, :, r * sh : r * sh + kh, c * sw : c * sw + kw].reshape(len(x), -1)
        self.shape = (x.shape[1], *x.shape[2:], height, width)
        return out

    def scatter(self, d: Array) -> Array:
        """Transpose of :meth:`rows` for a convolution: gradients ``[N, T, i]`` of patches to the image's."""
        assert self.kernel is not None
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.padding
        channels, full_h, full_w, height, width = self.shape
        image = np.zeros((len(d), channels, full_h, full_w), d.dtype)
        for r in range(height):
            for c in range(width):
                patch = d[:, r * width + c].reshape(len(d), channels, kh, kw)
                image[:, :, r * sh : r * sh + kh, c * sw : c * sw + kw] += patch
        return image[:, :, ph : full_h - ph, pw : full_w - pw]


def ones(a: Array, bias: bool) -> Array:
    """Append the column of ones."""
    return np.concatenate([a, np.ones((*a.shape[:-1], 1), a.dtype)], -1) if bias else a


def passes(layers: list[Layer], x: Array, slope: Array) -> list[tuple[Array, Array]]:
    """Rows ``a [N, T, i]`` without ones and ``dL/dy [N, T, o]`` of every layer, for the loss ``sum(outputs * slope)``.

    Between a convolution and a linear layer the image is flattened.
    """
    seen: list[Array] = []
    for k, layer in enumerate(layers):
        if layer.kernel is None and x.ndim == 4:
            x = x.reshape(len(x), -1)
        layer.x = x
        a = layer.rows(x)
        seen.append(a)
        y = ones(a, layer.bias) @ layer.W.T
        if layer.kernel is not None:
            y = y.transpose(0, 2, 1).reshape(len(x), len(layer.W), *layer.shape[3:])
        else:
            y = y.reshape(*x.shape[:-1], len(layer.W))
        if k < len(layers) - 1:
            y = np.tanh(y)
        layer.out = x = y
    gradients: list[Array] = []
    d = slope
    for k in range(len(layers) - 1, -1, -1):
        layer = layers[k]
        d = d.reshape(layer.out.shape)
        if k < len(layers) - 1:
            d = d * (1 - layer.out**2)
        g = (
            d.reshape(*d.shape[:2], -1).transpose(0, 2, 1)
            if layer.kernel is not None
            else d.reshape(len(d), -1, d.shape[-1])
        )
        gradients.append(g)
        back = g @ (layer.W[:, :-1] if layer.bias else layer.W)
        d = layer.scatter(back) if layer.kernel is not None else back.reshape(layer.x.shape)
    return list(zip(seen, gradients[::-1], strict=True))


def sgd(layer: Layer, gradient: Array, lr: float, momentum: float) -> None:
    """torch's SGD: ``v <- momentum v + g;  W <- W - lr v``, the first ``v`` being ``g``."""
    layer.velocity = gradient if layer.velocity is None else momentum * layer.velocity + gradient
    layer.W = layer.W - lr * layer.velocity
