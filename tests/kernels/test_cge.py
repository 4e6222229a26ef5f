"""CGE of sequential networks by layer reuse and by delta propagation: exact, and refused where it would not be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvebench.errors import CurvebenchError
from curvebench.kernels import cge_torch
from curvebench.kernels.cge_torch import coordinate_gradient_delta, coordinate_gradient_reuse
from curvebench.kernels.zeroth_torch import coordinate_gradient

FAST = (coordinate_gradient_reuse, coordinate_gradient_delta)
Build = Callable[[], nn.Sequential]


def strided() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, (3, 2), stride=2, padding=(1, 2), dilation=(1, 2), bias=False), nn.Tanh(),
        nn.Sequential(nn.AvgPool2d(2, 1), nn.Flatten()), nn.Linear(8, 5), nn.SiLU(), nn.Linear(5, 3),
    )  # fmt: skip


def three_convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 3, padding=1), nn.GELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.Tanh(), nn.Dropout(0.5).eval(), nn.Linear(4, 3, bias=False))


def one_layer() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Sigmoid())


NETS: dict[str, Build] = {f.__name__: f for f in (strided, three_convolutions, perceptron, one_layer)}


def problem(build: Build) -> tuple[nn.Sequential, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().double(), torch.randn(4, 2, 6, 6, dtype=torch.float64), torch.randint(0, 3, (4,))


def worst(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("fast", "scalars"),
    [(coordinate_gradient_reuse, 1 << 20), (coordinate_gradient_delta, 1 << 20), (coordinate_gradient_delta, 1)],
)
def test_equals_the_naive_loop(
    fast: Callable[..., cge_torch.Estimate], name: str, central: bool, scalars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cge_torch, "SCALARS", scalars)  # one coordinate at a time, or all of a channel
    net, x, y = problem(NETS[name])
    p = list(net.parameters())
    before, inputs = [t.detach().clone() for t in p], x.clone()
    wanted = coordinate_gradient(lambda: F.cross_entropy(net(x), y), p, mu=1e-3, central=central)
    seen = fast(net, F.cross_entropy, x, y, mu=1e-3, central=central)
    assert worst(seen.gradient, wanted.gradient) < 1e-10
    assert min(float(g.abs().max()) for g in seen.gradient) > 1e-4
    assert all(torch.equal(a, b) for a, b in zip(p, before, strict=True))
    assert torch.equal(x, inputs)
    if not central:
        assert torch.equal(seen.loss, wanted.loss)


@pytest.mark.parametrize("fast", FAST)
def test_masks(fast: Callable[..., cge_torch.Estimate]) -> None:
    net, x, y = problem(strided)
    p = list(net.parameters())
    generator = torch.Generator().manual_seed(1)
    masks: list[Tensor | None] = [torch.rand(t.shape, generator=generator) < 0.4 for t in p]
    masks[2] = None
    masks[-1] = torch.zeros(3, dtype=torch.bool)
    wanted = coordinate_gradient(lambda: F.cross_entropy(net(x), y), p, mu=1e-3, masks=masks)
    seen = fast(net, F.cross_entropy, x, y, mu=1e-3, masks=masks)
    assert worst(seen.gradient, wanted.gradient) < 1e-10
    assert [int((g != 0).sum()) for g in seen.gradient] == [int((g != 0).sum()) for g in wanted.gradient]


@pytest.mark.parametrize("fast", FAST)
def test_outputs_that_are_images_and_weights_with_the_channels_last(fast: Callable[..., cge_torch.Estimate]) -> None:
    net, x, _ = problem(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3, padding=1), nn.Tanh()))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    target = torch.zeros(4, 2, 4, 4, dtype=torch.float64)
    wanted = coordinate_gradient(lambda: F.mse_loss(net(x), target), list(net.parameters()), mu=1e-3)
    assert worst(fast(net, F.mse_loss, x, target, mu=1e-3).gradient, wanted.gradient) < 1e-10


def tied() -> nn.Sequential:
    layer = nn.Linear(72, 72)
    return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)), r"layer '1' \(BatchNorm2d\): it does not act"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.PReLU()), r"layer '1' \(PReLU\): .* parameters of its own"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), r"layer '0' \(Conv2d\): only groups = 1"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding="same")), "numeric zero padding"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")), "numeric zero padding"),
        (lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 2))), r"layer '0.0' \(Linear\): only on \[B, features\]"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Dropout(0.1)), "must drop the same units: use eval mode"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Softmax(1)), r"layer '1' \(Softmax\)"),
        (tied, r"layer '3' \(Linear\): its weight is used twice"),
        (lambda: nn.Sequential(nn.Flatten()), "no Conv2d or Linear layer"),
    ],
)
def test_other_layers_are_refused_by_name(build: Build, sentence: str) -> None:
    net, x, y = problem(build)
    for fast in FAST:
        with pytest.raises(CurvebenchError, match=sentence):
            fast(net, F.cross_entropy, x, y, mu=1e-3)
