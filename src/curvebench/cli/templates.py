"""The files that ``curvebench new`` writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from curvebench import cards
from curvebench.cards.base import NAME, PATTERNS
from curvebench.errors import CurvebenchError

_CARD = """\
# A method card: everything curvebench must know of a method. `curvebench show method FILE` checks it.
name = "{name}"                   # equals the file's name
title = "{title}"                 # how tables call it
family = "{family}"        # zeroth-order | first-order | quasi-newton | second-order
summary = "One sentence on what it does."
# What it asks of a task; asking anything else raises. Any of: loss, gradient, jvp, hvp, ggnvp, per_sample_gradient,
# layer_statistics, loss_function.
needs = [{needs}]
# twin = false                    # if torch and jax cannot run the same algorithm; then say why:
# twin_reason = "..."

# [paper]
# title = "..."
# authors = "..."
# year = 2025
# url = "https://..."

# One table per hyperparameter. A number has a range in interval notation, a string has choices.
[hyperparameters.lr]
default = {lr}
range = "(0, inf)"
about = "step size"
{more}
# What `curvebench tune` varies, inside the range; leave out what is to stay at its default.
[search.lr]
low = 1e-4
high = 1.0
scale = "log"                     # log | linear

# Of one step: queries of the oracle, and numbers kept between steps. Formulas know d (parameters), batch (samples)
# and the hyperparameters; + - * / ** max min ceil log2.
[cost]
step = {{ {step} }}
state = "{state}"

# target = module:attribute, or file.py:attribute; the working directory is importable.
# "$lr" is the hyperparameter lr; everything else is a literal. Set every argument that has a default worth naming.
[implementation.torch]
target = "{target}"
arguments = {{ {arguments} }}
{jax}"""

_JAX = """
# Leave this out if there is no jax version.
[implementation.jax]
target = "optax:sgd"
arguments = { learning_rate = "$lr", nesterov = false }
"""

_EPS = """
[hyperparameters.eps]
default = 1e-3
range = "(0, inf)"
about = "least curvature that is divided by"

[hyperparameters.beta]
default = 0.9
range = "[0, 1)"
about = "decay of the averaged curvature"
"""

_OPTIMISER = '''\
"""{title}: gradient steps divided by a running estimate of the Hessian's diagonal.

Update: ``D = |z * H z|`` with z of random signs; ``v = beta v + (1 - beta) D``; ``theta <- theta - lr g / (v + eps)``.
Replace it by your own; the same class works alone and inside curvebench.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from curvebench.oracle.standalone_torch import AutogradOracle
from curvebench.spec import Query

NEEDS = frozenset({{Query.GRADIENT, Query.HVP}})


class {cls}(torch.optim.Optimizer):
    """Alone, call ``loss.backward(create_graph=True)`` before ``step()``, or pass a closure that returns the loss.

    Args:
        params: parameters or groups.
        lr: step size, > 0.
        eps: least curvature that is divided by, > 0.
        beta: decay of the averaged curvature, in [0, 1).
    """

    def __init__(self, params: Iterable[Any], *, lr: float = 0.1, eps: float = 1e-3, beta: float = 0.9) -> None:
        if not (lr > 0 and eps > 0 and 0 <= beta < 1):
            raise ValueError(f"{cls}: lr = {{lr}}, eps = {{eps}}, beta = {{beta}}: must be > 0, > 0 and in [0, 1)")
        super().__init__(params, {{"lr": lr, "eps": eps, "beta": beta}})
        self.oracle: Any = None  # curvebench puts its counting oracle here; alone it stays None
        self._generator: torch.Generator | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss when it is known."""
        everything = [p for group in self.param_groups for p in group["params"]]
        if self.oracle is None and self._generator is None:
            self._generator = torch.Generator(everything[0].device).manual_seed(torch.initial_seed())
        oracle = self.oracle or AutogradOracle(everything, closure, self._generator)

        point = oracle.at(needs=NEEDS)  # all queries at one point share one forward
        gradients = [g.detach() for g in point.gradient()]
        stream = oracle.stream("probes")
        probes = [stream.draw("rademacher", tuple(p.shape)) for p in oracle.parameters]
        products = [hz.detach() for hz in point.hvp(probes)]

        of = {{p: (g, z * hz) for p, g, z, hz in zip(oracle.parameters, gradients, probes, products, strict=True)}}
        for group in self.param_groups:
            for p in group["params"]:
                if p not in of:
                    continue
                gradient, diagonal = of[p]
                state = self.state[p]
                if not state:
                    state.update(step=0, v=torch.zeros_like(p))
                state["step"] += 1
                state["v"].lerp_(diagonal.abs(), 1 - group["beta"])
                curvature = state["v"] / (1 - group["beta"] ** state["step"])
                p.sub_(group["lr"] * gradient / (curvature + group["eps"]))
        return point.loss()
'''


def write_method(name: str, folder: Path, *, curvature: bool) -> list[Path]:
    """Write ``<name>.toml`` and, for ``curvature``, ``<name with underscores>.py`` into ``folder``; return the files.

    Raises:
        CurvebenchError: a bad name, a file that exists (then nothing is written), or code beside the suite's cards.
    """
    module = name.replace("-", "_")
    if not re.match(NAME, name):
        raise CurvebenchError(f"name = {name!r}: {PATTERNS[NAME]}")
    files = {folder / f"{name}.toml": _card(name, module, curvature)}
    if curvature:
        if not module.isidentifier() or module in sys.stdlib_module_names:
            raise CurvebenchError(f"name = {name!r}: {module}.py could not be imported: choose another name")
        if folder.resolve() == (cards.root() / "methods").resolve():
            raise CurvebenchError(f"{folder}: holds cards and no code: write elsewhere, then move the card here")
        files[folder / f"{module}.py"] = _OPTIMISER.format(title=_title(name), cls=_class(name))
    for path in files:
        if path.exists():
            raise CurvebenchError(f"{path}: exists already: choose another name or --dir, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
    except OSError as error:
        raise CurvebenchError(f"{folder}: cannot be written to: {error.strerror or error}") from None
    return list(files)


def _title(name: str) -> str:
    return " ".join(part.capitalize() for part in name.split("-"))


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _card(name: str, module: str, curvature: bool) -> str:
    if curvature:
        return _CARD.format(
            name=name, title=_title(name), family="second-order", needs='"gradient", "hvp"', lr="0.1", more=_EPS,
            step="gradient = 1, hvp = 1", state="d", target=f"{module}:{_class(name)}",
            arguments='lr = "$lr", eps = "$eps", beta = "$beta"', jax="",
        )  # fmt: skip
    return _CARD.format(
        name=name, title=_title(name), family="first-order", needs='"gradient"', lr="1e-2", more="",
        step="gradient = 1", state="0", target="torch.optim:SGD", arguments='lr = "$lr", momentum = 0.0', jax=_JAX,
    )  # fmt: skip
