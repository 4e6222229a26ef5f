"""The layers of a jax model that a layer-wise preconditioner understands, and why it leaves the other parameters alone.

A model says what its layers are by calling a tap after each; which leaves of the parameters are a layer's is said by
their names. Leaves are named by their path, joined by dots: ``0.weight``, ``params.Dense_0.kernel``. Layer ``name``
owns ``name.weight`` (``[o, n]`` or ``[o, c, kh, kw]``, images ``[N, c, h, w]``: torch, Equinox) or ``name.kernel``
(``[n, o]`` or ``[kh, kw, c, o]``, images ``[N, h, w, c]``: Flax), and ``name.bias``; a unique end of a path will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.geometry import Geometry
from curvebench.oracle.capture_jax import Tap


class Layer(NamedTuple):
    """A layer that is preconditioned.

    Args:
        name: what the tap calls it.
        geometry: of a convolution; None for a dense layer.
        weight: name of the weight's leaf.
        bias: name of the bias' leaf, if there is one.
        shape: of the weight as torch lays it out, ``[o, n]`` or ``[o, c, kh, kw]``.
        dtype: of the weight.
        flax: the weight is a ``kernel``, with inputs first and channels last.
        uses: how often one forward calls it.
    """

    name: str
    geometry: Geometry | None
    weight: str
    bias: str | None
    shape: tuple[int, ...]
    dtype: Any
    flax: bool
    uses: int

    @property
    def sides(self) -> tuple[int, int]:
        """``(i, o)``, the bias' homogeneous coordinate counted in ``i``."""
        return math.prod(self.shape[1:]) + (self.bias is not None), self.shape[0]

    def inputs(self, x: Array) -> Array:
        """An input as torch lays it out."""
        return jnp.moveaxis(x, -1, -3) if self.flax and self.geometry is not None else x

    def outputs(self, y: Array) -> Array:
        """An output, or its gradient, likewise."""
        return self.inputs(y)

    def parts(self, leaves: Mapping[str, Array]) -> tuple[Array, Array | None]:
        """``dW [o, n]`` and ``db [o]`` out of gradients by leaf name."""
        dW = leaves[self.weight]
        if self.flax:
            dW = dW.T if self.geometry is None else dW.transpose(3, 2, 0, 1)
        return dW.reshape(self.shape[0], -1), None if self.bias is None else leaves[self.bias]

    def matrix(self, leaves: Mapping[str, Array]) -> Array:
        """The gradient ``W [o, i]``, the bias' as its last column."""
        dW, db = self.parts(leaves)
        return dW if db is None else jnp.concatenate([dW, db[:, None]], 1)

    def write(self, leaves: dict[str, Array], dW: Array, db: Array | None = None) -> None:
        """Replace the gradients by ``dW [o, n]``, or ``[o, i]`` with the bias' column, and ``db [o]``."""
        old = leaves[self.weight]
        n = dW.shape[1]
        if self.bias is not None:
            if db is None:
                n -= 1
                db = dW[:, n]
            leaves[self.bias] = db.astype(leaves[self.bias].dtype)
        new = dW[:, :n].reshape(self.shape)
        if self.flax:
            new = new.T if self.geometry is None else new.transpose(2, 3, 1, 0)
        leaves[self.weight] = new.astype(old.dtype)


class Layers(NamedTuple):
    """The layers that taps found, and the parameters that they do not cover.

    Args:
        found: in order of first use.
        unsupported: module name -> why its parameters are not preconditioned.
        surprising: those of them that are not normalisation layers or lone vectors.
    """

    found: tuple[Layer, ...]
    unsupported: dict[str, str]
    surprising: tuple[str, ...]

    def selected(self, method: str, skip: Sequence[str], shared: str) -> Layers:
        """Without the layers of ``skip``.

        Raises:
            HyperparameterError: ``skip`` names what is not there.
            CurvebenchError: no layer is left, or one that is used twice is to be refused.
        """
        names = [layer.name for layer in self.found]
        if unknown := sorted(set(skip) - set(names) - set(self.unsupported)):
            raise HyperparameterError(f"{method}: skip: the model has no module named {', '.join(map(repr, unknown))}")
        left = tuple(layer for layer in self.found if layer.name not in skip)
        gone = {
            layer.name: f"{_kind(layer.geometry)}, skipped on request" for layer in self.found if layer.name in skip
        }
        if not left:
            raise CurvebenchError(f"{method}: the model has no Linear or Conv2d layer to precondition")
        for layer in left:
            if shared == "refuse" and layer.uses > 1:
                raise CurvebenchError(
                    f"{method}: {shown(layer.name)} was used {layer.uses} times in one forward: its gradient is a sum "
                    "over uses; pass shared='expand' to treat them as positions of a sequence, or "
                    f"skip=[{layer.name!r}] to leave it to the base optimiser"
                )
        return Layers(left, {**gone, **self.unsupported}, (*gone, *self.surprising))


def shown(name: str) -> str:
    """A layer's name in a message."""
    return repr(name) if name else "the model itself"


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of parameters by the names of their paths."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        keys = (getattr(key, "name", getattr(key, "key", getattr(key, "idx", None))) for key in path)
        found[".".join(str(key) for key in keys)] = leaf
    return found


def renamed(tree: Any, leaves: Mapping[str, Array]) -> Any:
    """A tree like ``tree`` with other leaves, by name."""
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[name] for name in named_leaves(tree)])


def find_layers(forward: Callable[..., Any], params: Any, *inputs: Any) -> Layers:
    """What ``forward(params, *inputs, tap)`` tells the tap; nothing is computed, shapes will do.

    Raises:
        CurvebenchError: a tapped layer has no parameters of its name, or of other shapes than its input and output.
        TypeError: a weight is not floating.
    """
    taps: list[Tap] = []

    def run(*given: Any) -> tuple[Any, Any]:
        tap = Tap()
        forward(*given, tap)
        taps.append(tap)
        return tap.inputs, tap.outputs

    seen, outputs = jax.eval_shape(run, params, *inputs)
    tap, leaves = taps[-1], named_leaves(params)
    found: list[Layer] = []
    unsupported: dict[str, str] = {}
    surprising: list[str] = []
    for name, geo in tap.geometries.items():
        weight, bias = _owned(name, leaves)
        layer = _layer(name, geo, weight, bias, leaves, sum(key[0] == name for key in seen))
        x, y = (_torch_shape(layer, uses[name, 0].shape) for uses in (seen, outputs))
        if geo is not None and x[-3] > layer.shape[1]:
            unsupported[name] = f"Conv2d with groups = {x[-3] // layer.shape[1]}"
            surprising.append(name)
            continue
        _check(layer, x, y)
        found.append(layer)
    owned = {leaf for layer in found for leaf in (layer.weight, layer.bias)}
    for leaf, value in leaves.items():
        module = leaf.rpartition(".")[0] or leaf
        if leaf not in owned and module not in unsupported:
            unsupported[module] = "no tap watches it"
            if value.ndim > 1:
                surprising.append(module)
    return Layers(tuple(found), unsupported, tuple(surprising))


def _owned(name: str, leaves: Mapping[str, Any]) -> tuple[str, str | None]:
    """The leaves of a layer's weight and bias."""
    ends = [f"{name}.{kind}" if name else kind for kind in ("weight", "kernel")]
    fits = [leaf for leaf in leaves if leaf in ends] or [
        leaf for leaf in leaves if leaf.endswith(tuple(f".{e}" for e in ends))
    ]
    if len(fits) != 1:
        known = ", ".join(leaf for leaf in leaves if leaf.endswith(("weight", "kernel"))) or "none"
        seen = (
            f"{len(fits)} leaves fit ({', '.join(fits)})"
            if fits
            else f"no leaf of the parameters is its weight (weights: {known})"
        )
        raise CurvebenchError(f"tap({name!r}, ...): {seen}: name the layer by the path to its weight or kernel")
    bias = f"{fits[0].removesuffix('weight').removesuffix('kernel')}bias"
    return fits[0], bias if bias in leaves else None


def _layer(
    name: str, geo: Geometry | None, weight: str, bias: str | None, leaves: Mapping[str, Any], uses: int
) -> Layer:
    value = leaves[weight]
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"the weight of {shown(name)} has dtype {value.dtype}: must be floating")
    flax, shape = weight.endswith("kernel"), tuple(value.shape)
    if flax:
        shape = (shape[-1], shape[-2], *shape[:-2])
    if len(shape) != (2 if geo is None else 4):
        raise CurvebenchError(
            f"tap({name!r}, ...): its weight {weight} has shape {list(value.shape)}: a dense layer's has 2 dimensions, "
            "a convolution's, whose tap is handed its geometry, has 4"
        )
    return Layer(name, geo, weight, bias, shape, value.dtype, flax, uses)


def _torch_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-3], shape[-1], *shape[-3:-1]) if layer.flax and layer.geometry is not None else shape


def _check(layer: Layer, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    geo, axis = layer.geometry, -1 if layer.geometry is None else -3
    if (x[axis], y[axis]) == (layer.shape[1], layer.shape[0]) and (geo is None or _reaches(geo, x, y)):
        return
    raise CurvebenchError(
        f"tap({layer.name!r}, x, y): x {list(x)} and y {list(y)} are not input and output of a layer with weight "
        f"{list(layer.shape)}" + (f" and {geo}" if geo is not None else "")
    )


def _reaches(geo: Geometry, x: tuple[int, ...], y: tuple[int, ...]) -> bool:
    """Whether windows of this geometry over ``x`` are as many as the pixels of ``y``."""
    left, right, top, bottom = geo.padding
    for k, more in ((0, top + bottom), (1, left + right)):
        free = x[-2 + k] + more - geo.dilation[k] * (geo.kernel[k] - 1) - 1
        if free // geo.stride[k] + 1 != y[-2 + k]:
            return False
    return True


def _kind(geometry: Geometry | None) -> str:
    return "Linear" if geometry is None else "Conv2d"
