"""OrthoGrad, DCT-AdamW, TrAct and Eva, alone and in the harness: references, states, bad input."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import reference_transforms as reference
from curvebench.kernels.dct_torch import dct_basis
from curvebench.kernels.rank_one_torch import eva_direction
from curvebench.methods.dct_adamw_torch import DCTAdamW
from curvebench.methods.eva_torch import Eva
from curvebench.methods.orthograd_torch import OrthoGrad
from curvebench.methods.tract_torch import TrAct

F64 = torch.float64
Make = Callable[[nn.Module], Any]
ALL: dict[str, Make] = {
    "orthograd": lambda model: OrthoGrad(model.parameters(), lr=0.01),
    "dct-adamw": lambda model: DCTAdamW(model.parameters(), rank=2, select_every=2, error_feedback=True),
    "tract": lambda model: TrAct(model, lr=0.05, momentum=0.5),
    "eva": lambda model: Eva(model, lr=0.05, momentum=0.5),
}
every = pytest.mark.parametrize("name", ALL)


def net(dtype: torch.dtype = F64) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)
    ).to(dtype)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3, generator=generator)
    return model


def batch(t: int, n: int = 6, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(t)
    return torch.randn(n, 2, 4, 4, dtype=dtype, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def train(model: nn.Module, opt: Any, steps: range, dtype: torch.dtype = F64) -> list[float]:
    losses = []
    for t in steps:
        x, y = batch(t, dtype=dtype)
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    return losses


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -- OrthoGrad ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [False, True])
def test_orthograd_gives_the_base_projected_gradients(rescale: bool) -> None:
    model = net()
    opt = OrthoGrad(model.parameters(), base=torch.optim.SGD(model.parameters(), lr=0.1), rescale=rescale)
    x, y = batch(0)
    F.cross_entropy(model(x), y).backward()
    before = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]  # type: ignore[union-attr]
    opt.step()
    for p, (w, g) in zip(model.parameters(), before, strict=True):
        part = torch.tensor(reference.orthogonal_gradient(w.numpy(), g.numpy(), rescale=rescale))
        assert torch.allclose(p.detach(), w - 0.1 * part, atol=1e-13)
        assert abs(float((part * w).sum())) < 1e-13


def test_orthograd_without_a_base_is_adamw_on_projected_gradients() -> None:
    one, other = net(), net()
    opt = OrthoGrad(one.parameters(), lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    adamw = torch.optim.AdamW(other.parameters(), lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for t in range(4):
        train(one, opt, range(t, t + 1))
        adamw.zero_grad()
        x, y = batch(t)
        F.cross_entropy(other(x), y).backward()
        for p in other.parameters():
            w, g = p.detach().numpy(), p.grad.numpy()  # type: ignore[union-attr]
            p.grad = torch.tensor(reference.orthogonal_gradient(w, g, rescale=True))
        adamw.step()
    assert torch.allclose(weights(one), weights(other), atol=1e-12)


# -- DCT-AdamW ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rotate", "feedback"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 3, 1), (3, 4, 2)])
def test_dct_adamw_follows_its_reference(shape: tuple[int, ...], rotate: bool, feedback: bool) -> None:
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(shape), [rng.standard_normal(shape) for _ in range(7)]
    p = torch.tensor(w).requires_grad_()
    given: dict[str, Any] = {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}
    opt = DCTAdamW([p], rank=2, select_every=3, rotate=rotate, error_feedback=feedback, **given)
    for g in gradients:
        p.grad = torch.tensor(g)
        opt.step()

    def tall(m: np.ndarray) -> np.ndarray:
        m = m.reshape(shape[0], -1)
        return m.T if m.shape[0] < m.shape[1] else m

    expected = reference.dct_adamw(tall(w), [tall(g) for g in gradients], rank=2, every=3, rotate=rotate,
                                   feedback=feedback, **given)  # fmt: skip
    assert np.allclose(tall(p.detach().numpy()), expected, atol=1e-11)


def test_with_full_rank_it_is_adamw_in_cosine_coordinates_which_is_not_adamw() -> None:
    rng = np.random.default_rng(0)
    w, Q = torch.tensor(rng.standard_normal((6, 4))), dct_basis(4, F64, torch.device("cpu"))
    p, turned, plain = (t.clone().requires_grad_() for t in (w, w @ Q, w))
    given: dict[str, Any] = {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}
    opt = DCTAdamW([p], rank=4, select_every=2, **given)
    adamw = torch.optim.AdamW([turned, plain], **given)
    for _ in range(6):
        g = torch.tensor(rng.standard_normal((6, 4)))
        p.grad, turned.grad, plain.grad = g.clone(), g @ Q, g.clone()
        opt.step()
        adamw.step()
    assert torch.allclose(p.detach(), turned.detach() @ Q.T, atol=1e-12)
    assert float((p - plain).detach().abs().max()) > 0.01


def test_vectors_and_matrices_with_a_very_long_side_get_plain_adamw() -> None:
    rng = np.random.default_rng(0)
    shapes = [(5,), (32000, 2), (2, 32001)]
    ours = [torch.tensor(rng.standard_normal(s)).requires_grad_() for s in shapes]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    opt, adamw = DCTAdamW(ours, lr=0.1, weight_decay=0.1), torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.1)
    for _ in range(2):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.tensor(rng.standard_normal(p.shape))
            q.grad = p.grad.clone()
        opt.step()
        adamw.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(p, q, atol=1e-13)


def test_dct_adamw_keeps_what_its_page_says() -> None:
    model = nn.Sequential(nn.Linear(20, 12), nn.Conv2d(3, 8, 3))
    for feedback in (False, True):
        opt = DCTAdamW(model.parameters(), rank=5, error_feedback=feedback)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        opt.step()
        sizes = {k: sum(s[k].numel() * s[k].element_size() for s in opt.state.values() if k in s)
                 for k in ("m", "v", "idx", "lost")}  # fmt: skip
        moments = 5 * 20 + 5 * 27 + 12 + 8  # rank x longer side of each matrix, and the vectors
        assert sizes == {"m": 4 * moments, "v": 4 * moments, "idx": 8 * 10, "lost": 4 * 456 * feedback}


# -- TrAct -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 6])  # 8 rows for 18 inputs, and 24
def test_tract_changes_the_first_layer_only_and_as_by_brute_force(n: int) -> None:
    model, plain = net(), net()
    opt = TrAct(model, base=torch.optim.SGD(model.parameters(), lr=0.1), damping=0.2)
    x, y = batch(0, n)
    outputs: list[Tensor] = []
    plain[0].register_forward_hook(lambda _m, _i, o: (o.retain_grad(), outputs.append(o))[1])
    for m in (model, plain):
        F.cross_entropy(m(x), y).backward()
    assert opt.precondition()
    patches = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 18)
    dz = outputs[0].grad.flatten(2).transpose(1, 2).reshape(-1, 3)  # type: ignore[union-attr]
    expected = reference.tract_gradient(patches.numpy(), dz.numpy(), 0.2)
    assert np.allclose(model[0].weight.grad.flatten(1), expected, atol=1e-13)
    others = [(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True) if p is not model[0].weight]
    assert all(torch.equal(p.grad, q.grad) for p, q in others)  # type: ignore[arg-type]


def test_tract_of_micro_batches_is_tract_of_the_batch() -> None:
    one, other = net(), net()
    x, y = batch(0, 8)
    optimizers = [TrAct(m, base=torch.optim.SGD(m.parameters(), lr=0.1)) for m in (one, other)]
    F.cross_entropy(one(x), y).backward()
    for part in range(2):
        rows = slice(4 * part, 4 * part + 4)
        (F.cross_entropy(other(x[rows]), y[rows]) / 2).backward()
    for opt in optimizers:
        opt.step()
    assert torch.allclose(weights(one), weights(other), atol=1e-13)


def test_tract_of_a_named_layer() -> None:
    model = net()
    assert [layer.name for layer in TrAct(model, lr=0.1).layers] == ["0"]
    assert [layer.name for layer in TrAct(model, lr=0.1, layer="3").layers] == ["3"]
    with pytest.raises(HyperparameterError, match="layer = '1': must be one of '0', '3', '5'"):
        TrAct(model, lr=0.1, layer="1")
    words = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Embedding(2, 3))
    opt = TrAct(words, lr=0.1)
    assert list(opt.unsupported) == ["0"], "what comes before the layer, and is not transformed"


def test_tract_in_the_harness_leaves_the_regulariser_as_it_is() -> None:
    spec = tiny.run_spec("tract", lr=0.1, momentum=0.0, damping=0.3)
    running = tiny.engine(spec, tiny.mlp(0.5, batch=4))
    before = tiny.parameters(running)
    running.step(0, float("inf"))
    after = tiny.parameters(running)
    plain = tiny.Torch(tiny.mlp(0.5, batch=4))
    gradient = plain.ask("gradient")
    statistics = plain.ask("layer_statistics")
    name = next(iter(before))
    inputs, outputs = statistics[name.removesuffix(".weight")]
    part = reference.tract_gradient(inputs[0], outputs[0], 0.3)
    for key, value in before.items():
        step = part + 0.5 * value if key == name else gradient[key]
        assert np.allclose(after[key], value - 0.1 * step, atol=1e-12)


# -- Eva ---------------------------------------------------------------------------------------------------------------


def test_eva_equals_the_dense_inverse_of_its_running_means() -> None:
    layer = nn.Linear(4, 3).double()
    opt = Eva(layer, base=torch.optim.SGD(layer.parameters(), lr=0.1), damping=0.05, factor_decay=0.6, kl_clip=0.0)
    total_a, total_g, weight = np.zeros(5), np.zeros(3), 0.0
    for t in range(3):
        rng = np.random.default_rng(t)
        x, y = torch.tensor(rng.standard_normal((6, 4))), torch.tensor(rng.standard_normal((6, 3)))
        opt.zero_grad()
        o = layer(x)
        (o - y).square().sum(1).mean().backward()
        W = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1).numpy().copy()  # type: ignore[list-item, index]
        a = np.append(x.numpy().mean(0), 1.0)
        g = (2 * (o.detach() - y)).numpy().mean(0)
        total_a, total_g, weight = 0.6 * total_a + a, 0.6 * total_g + g, 0.6 * weight + 1
        assert opt.precondition()
        P = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1).numpy()  # type: ignore[list-item, index]
        assert np.allclose(P, reference.eva_direction(W, total_a / weight, total_g / weight, 0.05), atol=1e-11)
        opt.base.step()


def test_eva_s_clip_bounds_the_step() -> None:
    layer = nn.Linear(4, 3).double()
    opt = Eva(layer, base=torch.optim.SGD(layer.parameters(), lr=0.5), kl_clip=1e-4)
    layer(torch.ones(2, 4, dtype=F64)).square().sum().backward()
    W = [p.grad.clone() for p in layer.parameters()]  # type: ignore[union-attr]
    opt.precondition()
    size = sum(float((p.grad * w).sum()) for p, w in zip(layer.parameters(), W, strict=True)) * 0.25  # type: ignore[operator]
    # P scaled by nu has size nu times that of P, and nu^2 times that is the bound
    free = Eva(copy.deepcopy(layer), lr=0.5)
    free.kl_clip = 0.0
    full = free.layers[0]
    full.weight.grad, full.bias.grad = W[0].clone(), W[1].clone()  # type: ignore[union-attr]
    free.layer_state = copy.deepcopy(opt.layer_state)
    free._apply()
    unclipped = sum(float((p.grad * w).sum()) for p, w in zip((full.weight, full.bias), W, strict=True)) * 0.25  # type: ignore[union-attr, operator]
    assert unclipped > 1e-4
    assert size / unclipped == pytest.approx((1e-4 / unclipped) ** 0.5)


# -- what all keep -----------------------------------------------------------------------------------------------------


@every
def test_a_saved_state_continues_with_the_same_bits(name: str) -> None:
    one, other = net(), net()
    first, second = ALL[name](one), ALL[name](other)
    train(one, first, range(5))
    file = io.BytesIO()
    torch.save({"model": one.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    train(other, second, range(1))
    saved = torch.load(file)
    other.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    train(one, first, range(5, 9))
    train(other, second, range(5, 9))
    assert torch.equal(weights(one), weights(other))


@every
def test_what_is_not_finite_is_skipped_and_counted(name: str) -> None:
    model = net()
    opt = ALL[name](model)
    train(model, opt, range(2))
    before = weights(model)
    opt.zero_grad()
    x, y = batch(2)
    (F.cross_entropy(model(x), y) * float("nan")).backward()
    opt.step()
    assert torch.equal(weights(model), before)
    assert opt.skipped == 1
    assert any("skipped" in note for note in opt.notes())
    train(model, opt, range(3, 4))
    assert torch.isfinite(weights(model)).all()


@every
def test_float32_trains(name: str) -> None:
    model = net(torch.float32)
    opt = ALL[name](model)
    x, y = batch(0, dtype=torch.float32)
    losses = []
    for _ in range(40):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


BAD: list[tuple[Make, str]] = [
    (lambda m: OrthoGrad(m.parameters()), "OrthoGrad: pass base, the optimiser that takes the step, or lr"),
    (lambda m: OrthoGrad(m.parameters(), lr=-0.5), r"OrthoGrad: lr = -0.5: must lie in \[0, inf\)"),
    (lambda m: OrthoGrad(m.parameters(), lr=0.1, betas=(0.9, 1.0)), r"beta2 = 1.0: must lie in \[0, 1\)"),
    (lambda m: OrthoGrad(m.parameters(), base=torch.optim.SGD(m.parameters(), lr=1.0), lr=0.1),
     "lr: the base optimiser's: set them there"),
    (lambda m: DCTAdamW(m.parameters(), rank=0), r"DCTAdamW: rank = 0: must lie in \[1, inf\)"),
    (lambda m: DCTAdamW(m.parameters(), select_every=0), r"select_every = 0: must lie in \[1, inf\)"),
    (lambda m: DCTAdamW(m.parameters(), lr=-1.0), r"lr = -1.0: must lie in \[0, inf\)"),
    (lambda m: DCTAdamW(m.parameters(), betas=(-0.1, 0.9)), r"beta1 = -0.1: must lie in \[0, 1\)"),
    (lambda m: TrAct(m, lr=0.1, damping=0.0), r"TrAct: damping = 0.0: must lie in \(0, inf\)"),
    (lambda m: TrAct(m), "pass base, the optimiser that takes the step"),
    (lambda m: Eva(m, lr=0.1, damping=-1.0), r"Eva: damping = -1.0: must lie in \(0, inf\)"),
    (lambda m: Eva(m, lr=0.1, factor_decay=1.0), r"factor_decay = 1.0: must lie in \[0, 1\)"),
    (lambda m: Eva(m, lr=0.1, kl_clip=-1.0), r"kl_clip = -1.0: must lie in \[0, inf\)"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_values_are_refused_at_construction(make: Make, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        make(net())


def test_bad_dtypes_and_missing_gradients_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torch.bfloat16: must be float32 or float64"):
        DCTAdamW([torch.ones(2, dtype=torch.bfloat16, requires_grad=True)])
    model = net()
    for opt in (OrthoGrad(model.parameters(), lr=0.1), DCTAdamW(model.parameters())):
        with pytest.raises(CurvebenchError, match="no parameter has a gradient"):
            opt.step()
    words = nn.Embedding(4, 3, sparse=True)
    words(torch.tensor([1])).sum().backward()
    for make in (lambda: OrthoGrad(words.parameters(), lr=0.1), lambda: DCTAdamW(words.parameters())):
        with pytest.raises(CurvebenchError, match="a gradient is sparse"):
            make().step()


def test_evas_clip_knows_each_layers_step_size() -> None:
    """A group that does not move takes no room in the bound, in whatever order the groups stand."""
    ends = []
    for order in (1, -1):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.0}][::order]
        opt = Eva(model, base=torch.optim.SGD(groups), kl_clip=1e-6)
        x = torch.randn(8, 4, dtype=torch.float64)
        model(x).square().mean().backward()
        W = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None]], 1).clone()
        opt.step()
        P = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None]], 1)
        ends.append(P)
        a, g = opt.factors("0")
        free = eva_direction(W, a, g, opt.damping)
        nu = (1e-6 / ((free * W).sum() * 0.01)).sqrt()
        assert nu < 1
        assert torch.allclose(P, nu * free, rtol=1e-10, atol=0)
    assert torch.equal(*ends)
