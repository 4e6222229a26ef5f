"""Coordinate-wise gradient estimates (CGE) of sequential networks without a full forward for every coordinate.

White-box: both see the layers, and give what the naive loop of one full forward per coordinate gives, to rounding.

Layer reuse restarts at the changed layer, whose clean input is kept. Delta propagation goes further: a weight changes
one channel ``o`` of its layer's output, ``z_o <- z_o + mu * (the input that the weight sees)``; elementwise and pooling
layers act on that channel alone; the next layer sees one changed input channel and adds ``W[:, o] * delta`` to its
clean output; from there on the forward is a usual one. All coordinates of a channel are one batch.

Shapes: ``K`` coordinates at a time, ``B`` samples; ``P`` weights that feed a channel (``c_in * kh * kw``, or the inputs
of a linear layer), the bias counted as one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvebench.errors import CurvebenchError
from curvebench.kernels.zeroth_torch import Estimate, displaced

Criterion = Callable[[Tensor, Tensor], Tensor]

ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.LogSigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Identity,
)  # fmt: skip
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
LAST = torch.channels_last
SCALARS = 1 << 20
"""Scalars of the largest intermediate of a batch of coordinates: 4 MiB in float32; larger ones leave the cache."""


@dataclass
class Stage:
    """A layer with weights and the modules up to the next one.

    Args:
        layer: convolution or linear.
        rest: modules that act on each channel by itself, or flatten.
        inputs: the layer's clean input, ``[B, c_in, ...]``.
        clean: the layer's clean output, ``[B, c_out, ...]``.
        outputs: the clean output of the whole stage.
    """

    layer: nn.Conv2d | nn.Linear
    rest: list[nn.Module]
    inputs: Tensor
    clean: Tensor
    outputs: Tensor


@torch.no_grad()
def coordinate_gradient_reuse(
    module: nn.Sequential,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    mu: float,
    central: bool = False,
    masks: Sequence[Tensor | None] | None = None,
) -> Estimate:
    """CGE with layer reuse, as in DeepZero: each coordinate runs the forward from its own layer on.

    Args:
        module: the network, see :func:`stages`.
        criterion: ``(outputs, targets) -> []``.
        inputs: ``[B, ...]``.
        targets: ``[B, ...]``.
        mu: smoothing radius, > 0.
        central: two-sided differences.
        masks: per parameter of ``module.parameters()``, True where a coordinate is active, or None for all.

    Returns:
        The estimate; its loss is the one at the clean parameters, central or not, since that forward is made anyway.

    Raises:
        CurvebenchError: a layer is not supported.
    """
    found = stages(module, inputs)
    base = criterion(found[-1].outputs, targets)
    gradient = _zeros(module)
    for s, o, (weights, bias) in _coordinates(module, found, masks):
        layer = found[s].layer
        loss = partial(_restarted, found, s, criterion, targets)
        where: list[tuple[Tensor, tuple[int, ...]]] = [
            (layer.weight, (o, *map(int, np.unravel_index(row, layer.weight.shape[1:])))) for row in weights.tolist()
        ]
        if layer.bias is not None and len(bias):
            where.append((layer.bias, (o,)))
        for p, at in where:
            above = displaced(loss, p[at], mu)
            below = displaced(loss, p[at], -mu) if central else base
            gradient[p][at] = (above - below) / (2 * mu if central else mu)
    return Estimate([gradient[p] for p in module.parameters()], base)


@torch.no_grad()
def coordinate_gradient_delta(
    module: nn.Sequential,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    mu: float,
    central: bool = False,
    masks: Sequence[Tensor | None] | None = None,
) -> Estimate:
    """CGE by exact delta propagation, all coordinates of an output channel in batches.

    Args:
        module: the network, see :func:`stages`; its parameters are not touched.
        criterion: ``(outputs [B, ...], targets) -> []``; run under ``vmap`` over coordinates.
        inputs: ``[B, ...]``.
        targets: ``[B, ...]``.
        mu: smoothing radius, > 0.
        central: two-sided differences.
        masks: per parameter of ``module.parameters()``, True where a coordinate is active, or None for all.

    Returns:
        The estimate; its loss is the one at the clean parameters, central or not, since that forward is made anyway.

    Raises:
        CurvebenchError: a layer is not supported.
    """
    found = stages(module, inputs)
    base = criterion(found[-1].outputs, targets)
    gradient = _zeros(module)
    losses = torch.vmap(criterion, in_dims=(0, None))
    seen_by = {s: _seen(stage) for s, stage in enumerate(found)}
    for s, o, (weights, bias) in _coordinates(module, found, masks):
        layer, seen = found[s].layer, seen_by[s]
        rows = torch.cat([weights, bias + len(seen) - 1])  # the last row of `seen` is the bias's
        slopes = torch.cat([
            _slopes(found, s, o, seen[part], losses, targets, base, mu, central)
            for part in torch.split(rows, _at_once(found, s))
        ]) if len(rows) else base.new_zeros(0)  # fmt: skip
        gradient[layer.weight][o].view(-1)[weights] = slopes[: len(weights)]
        if layer.bias is not None and len(bias):
            gradient[layer.bias][o] = slopes[-1]
    return Estimate([gradient[p] for p in module.parameters()], base)


def _zeros(module: nn.Module) -> dict[Tensor, Tensor]:
    return {p: torch.zeros_like(p, memory_format=torch.contiguous_format) for p in module.parameters()}


def stages(module: nn.Sequential, inputs: Tensor) -> list[Stage]:
    """Cut a network into stages, with the clean activations at ``inputs [B, ...]``.

    Supported are (nested) Sequentials of Conv2d without groups, Linear on ``[B, features]``, elementwise activations
    without parameters, pooling and Flatten; dropout only in eval mode; every layer once.

    Raises:
        CurvebenchError: names the first layer that is not supported, and the way out.
    """
    found: list[Stage] = []
    layers: set[int] = set()
    a = inputs
    for name, layer in _flat(module):
        _supported(name, layer, a)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if id(layer.weight) in layers:
                raise _refusal(name, layer, "its weight is used twice")
            layers.add(id(layer.weight))
            z = layer(a)
            found.append(Stage(layer, [], a, z.contiguous(memory_format=LAST) if z.dim() == 4 else z, z))
            a = z
            continue
        a = layer(a.clone() if getattr(layer, "inplace", False) else a)  # the clean output before it is kept
        if found:
            found[-1].rest.append(layer)
            found[-1].outputs = a
    if not found:
        raise CurvebenchError("CGE: the network has no Conv2d or Linear layer")
    return found


def _flat(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module._modules.items():  # named_children() leaves out a layer's second use
        if child is None:
            continue
        if isinstance(child, nn.Sequential):
            yield from _flat(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _supported(name: str, layer: nn.Module, a: Tensor) -> None:
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str) or a.dim() != 4:
            raise _refusal(name, layer, "only groups = 1 and numeric zero padding, on [B, channels, height, width]")
    elif isinstance(layer, nn.Linear):
        if a.dim() != 2:
            raise _refusal(name, layer, f"only on [B, features], here {list(a.shape)}")
    elif isinstance(layer, nn.Flatten):
        if layer.start_dim != 1 or layer.end_dim not in (-1, a.dim() - 1):
            raise _refusal(name, layer, "only from dimension 1 to the last")
    elif isinstance(layer, nn.modules.dropout._DropoutNd):
        if layer.training:
            raise _refusal(name, layer, "losses that are compared must drop the same units: use eval mode")
    elif not isinstance(layer, ELEMENTWISE + POOLS) or (isinstance(layer, POOLS) and a.dim() != 4):
        raise _refusal(name, layer, "it does not act on each channel by itself, or has parameters of its own")


def _refusal(name: str, layer: nn.Module, why: str) -> CurvebenchError:
    return CurvebenchError(
        f"CGE: layer {name!r} ({type(layer).__name__}): {why}; zeroth_torch.coordinate_gradient takes any network"
    )


def _coordinates(
    module: nn.Module, found: list[Stage], masks: Sequence[Tensor | None] | None
) -> Iterator[tuple[int, int, tuple[Tensor, Tensor]]]:
    """Active coordinates channel by channel: ``(stage, channel, (weights of the channel, [0] or [] for its bias))``."""
    parameters: list[Tensor] = list(module.parameters())
    mask_of = dict(zip(parameters, masks or [None] * len(parameters), strict=True))
    for s, stage in enumerate(found):
        weight, bias = stage.layer.weight, stage.layer.bias
        active = mask_of[weight]
        everything = torch.arange(weight[0].numel(), device=weight.device)
        for o in range(len(weight)):
            rows = everything if active is None else active[o].reshape(-1).nonzero()[:, 0]
            off = bias is None or (mask_of[bias] is not None and not mask_of[bias][o])  # type: ignore[index]
            yield s, o, (rows, everything[: 0 if off else 1])


def _seen(stage: Stage) -> Tensor:
    """What a unit change of each weight of a channel adds to it: ``[P + 1, B, *positions]``, the bias's last."""
    layer, a = stage.layer, stage.inputs
    if isinstance(layer, nn.Linear):
        rows = a.T
    else:
        patches = F.unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        rows = patches.transpose(0, 1).reshape(-1, len(a), *stage.clean.shape[2:])
    return torch.cat([rows, torch.ones_like(rows[:1])])


def _at_once(found: list[Stage], s: int) -> int:
    """How many coordinates make a batch."""
    widest = max([found[s].clean[:, 0].numel(), *(f.clean.numel() for f in found[s + 1 :])])
    return max(1, SCALARS // widest)


def _slopes(
    found: list[Stage], s: int, o: int, seen: Tensor, losses: Criterion, targets: Tensor, base: Tensor, mu: float,
    central: bool,
) -> Tensor:  # fmt: skip
    """Difference quotients ``[K]`` of the coordinates whose unit changes of channel o are ``seen [K, B, ...]``."""
    above = losses(_displaced(found, s, o, seen, mu), targets)
    if not central:
        return (above - base) / mu
    return (above - losses(_displaced(found, s, o, seen, -mu), targets)) / (2 * mu)


def _displaced(found: list[Stage], s: int, o: int, seen: Tensor, by: float) -> Tensor:
    """The network's outputs ``[K, B, ...]`` with channel ``o`` of stage ``s`` displaced by ``by * seen``."""
    stage, k, b = found[s], len(seen), len(found[s].clean)
    channel = torch.add(stage.clean[:, o].contiguous(), seen, alpha=by)
    for layer in stage.rest:
        if not isinstance(layer, nn.Flatten):
            channel = _apply(layer, channel)
        elif channel.dim() > 2:
            channel = channel.flatten(2)
    flat = stage.outputs.dim() == 2
    width = channel[0, 0].numel()  # features of the channel once flattened
    columns = slice(o * width, (o + 1) * width)
    if s == len(found) - 1:
        out = stage.outputs.expand(k, *stage.outputs.shape).clone()
        if flat:
            out[:, :, columns] = channel.reshape(k, b, width)
        else:
            out[:, :, o] = channel
        return out
    after = found[s + 1]
    layer = after.layer
    if isinstance(layer, nn.Linear):
        delta = channel.reshape(k, b, width) - stage.outputs[:, columns]
        z = delta.view(k * b, width) @ layer.weight[:, columns].T
    else:
        # Convolutions of one channel and pooling are several times faster with the channels last.
        delta = (channel - stage.outputs[:, o]).reshape(k * b, 1, *stage.outputs.shape[2:]).to(memory_format=LAST)
        kernel = layer.weight[:, o : o + 1].contiguous(memory_format=LAST)
        z = F.conv2d(delta, kernel, None, layer.stride, layer.padding, layer.dilation).contiguous(memory_format=LAST)
    z.view(k, b, *after.clean.shape[1:]).add_(after.clean)
    out = _tail(found, s + 1, z)
    return out.view(k, b, *out.shape[1:])


def _restarted(found: list[Stage], s: int, criterion: Criterion, targets: Tensor) -> Tensor:
    return criterion(_tail(found, s, found[s].layer(found[s].inputs)), targets)


def _tail(found: list[Stage], s: int, z: Tensor) -> Tensor:
    """The network's outputs from the output ``z`` of stage s's layer on; ``z`` may be overwritten."""
    for i, stage in enumerate(found[s:]):
        if i:
            z = stage.layer(z)
        for layer in stage.rest:
            z = _apply(layer, z)
    return z


def _apply(layer: nn.Module, z: Tensor) -> Tensor:
    """A module without weights; ``z`` is nobody else's, so that a ReLU may overwrite it."""
    out: Tensor = torch.relu_(z) if type(layer) is nn.ReLU else layer(z)
    return out
