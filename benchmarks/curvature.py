"""Curvature kernels and AdaHessian's step on a small convolutional network; torch, one thread."""

from __future__ import annotations

from typing import Any

BATCH, PROBES, STEPS = 32, 8, 16


def network() -> tuple[Any, Any, Any]:
    """A module of 9,258 parameters, inputs and targets."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip
    return module, torch.randn(BATCH, 1, 8, 8), torch.randint(0, 10, (BATCH,))


class Timed:
    """Samples enough for asv to see a change."""

    repeat = (8, 20, 5.0)
    warmup_time = 0.1
    timeout = 120.0


class Kernels(Timed):
    """Seconds of one call."""

    def setup(self) -> None:
        import torch
        import torch.nn.functional as F

        from curvebench.kernels.products_torch import differentiate, hessian_vector_product, on_vectors

        self.module, self.x, self.y = network()
        self.params = list(self.module.parameters())
        gradient = differentiate(
            [F.cross_entropy(self.module(self.x), self.y)], self.params, create_graph=True, retain_graph=True
        )
        self.hvp = on_vectors(lambda v: hessian_vector_product(gradient, self.params, v), self.params)
        d = sum(p.numel() for p in self.params)
        self.probes = [torch.randint(0, 2, (d,)) * 2.0 - 1 for _ in range(PROBES)]
        self.outputs = self.module(self.x)

    def time_hessian_vector_product(self) -> None:
        self.hvp(self.probes[0])

    def time_gauss_newton_vector_product(self) -> None:
        import torch.nn.functional as F

        from curvebench.kernels.products_torch import gauss_newton_vector_product

        gauss_newton_vector_product(self.outputs, self.params, self.params, lambda o: F.cross_entropy(o, self.y))

    def time_per_sample_gradients(self) -> None:
        import torch.nn.functional as F
        from torch.func import functional_call

        from curvebench.kernels.per_sample_torch import per_sample_gradients

        live = {n: p.detach() for n, p in self.module.named_parameters()}
        per_sample_gradients(
            lambda p, x, y: F.cross_entropy(functional_call(self.module, p, (x,)), y), live, self.x, self.y
        )

    def time_hutchinson_diagonal(self) -> None:
        from curvebench.kernels.hutchinson_torch import hutchinson_diagonal

        hutchinson_diagonal(self.hvp, self.probes)

    def time_lanczos(self) -> None:
        from curvebench.kernels.lanczos_torch import lanczos

        lanczos(self.hvp, self.probes[0], STEPS)


class AdaHessianStep(Timed):
    """Seconds of a step, and of its bare derivatives: forward, backward, backward through both."""

    def setup(self) -> None:
        from curvebench.torch import AdaHessian

        self.module, self.x, self.y = network()
        self.params = list(self.module.parameters())
        self.optimizer = AdaHessian(self.params, lr=1e-4)

    def _loss(self) -> Any:
        import torch.nn.functional as F

        return F.cross_entropy(self.module(self.x), self.y)

    def time_step(self) -> None:
        self.optimizer.step(self._loss)

    def time_bare(self) -> None:
        import torch

        g = torch.autograd.grad(self._loss(), self.params, create_graph=True)
        torch.autograd.grad(g, self.params, [p.detach() for p in self.params])
