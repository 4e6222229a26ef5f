"""From what a user names to a method's card: registry, file, dotted path, entry point; and what is said otherwise."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import tiny

from curvebench import cards
from curvebench.errors import CardError, HyperparameterError, UnknownNameError
from curvebench.methods import resolve
from curvebench.methods.resolve import load_target

OPTIMISER = """
import torch


class Halving(torch.optim.Optimizer):
    needs = ("gradient",)

    def __init__(self, params, lr: float = 0.5, momentum: float = 0, *, nesterov: bool = False, mode: str = "plain",
                 betas=(0.9, 0.999), _private: int = 3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])
        return loss
"""

CARD = """
name = "mine"
title = "Mine"
family = "first-order"
summary = "gradient descent"
needs = ["gradient"]
[hyperparameters.lr]
default = 0.1
range = "(0, inf)"
about = "step size"
[implementation.torch]
target = "torch.optim:SGD"
arguments = { lr = "$lr" }
"""


def run(card: Any, reference: str, framework: str, **given: Any) -> float:
    """Three steps on the tiny least squares; the change of the loss."""
    spec = tiny.run_spec(reference, framework=framework, **given)
    engine = tiny.engine(spec, tiny.squared())
    before = engine.evaluate().loss
    for step in range(3):
        engine.step(step, float("inf"))
    return engine.evaluate().loss - before


def test_a_name_is_the_registrys_card() -> None:
    assert resolve("adam") is cards.method("adam")


def test_a_path_is_that_card(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(CARD)
    card = resolve(str(file))
    assert (card.name, card.path, card.frameworks) == ("mine", file, ("torch",))
    assert run(card, str(file), "torch") < 0


def test_a_dotted_path_becomes_a_card_of_its_constructor() -> None:
    card = resolve("torch.optim:SGD")
    assert (card.name, card.title, card.frameworks, card.family) == ("sgd", "SGD", ("torch",), "first-order")
    assert dict(card.resolve({"momentum": 0.9}))["momentum"] == 0.9, "torch writes momentum: float = 0"
    assert run(card, "torch.optim:SGD", "torch", lr=0.1, momentum=0.5) < 0
    with pytest.raises(HyperparameterError, match=r"momentun: unknown hyperparameter: did you mean 'momentum'"):
        card.resolve({"momentun": 0.5})


def test_a_file_becomes_a_card_of_its_class(tmp_path: Path) -> None:
    file = tmp_path / "opt.py"
    file.write_text(OPTIMISER)
    card = resolve(f"{file}:Halving")
    defaults = {name: h.default for name, h in card.hyperparameters.items()}
    assert defaults == {"lr": 0.5, "momentum": 0.0, "nesterov": False}, "words and tuples stay at their defaults"
    assert type(defaults["momentum"]) is float
    assert run(card, f"{file}:Halving", "torch", lr=0.1) < 0


def test_the_working_directory_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mypkg_of_resolve"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "opt.py").write_text(OPTIMISER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert resolve("mypkg_of_resolve.opt:Halving").title == "Halving"
    assert resolve("mypkg_of_resolve/opt.py:Halving").title == "Halving"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the package's own, at import
def test_an_optimiser_of_pytorch_optimizer_without_a_card() -> None:
    pytest.importorskip("pytorch_optimizer")
    card = resolve("pytorch_optimizer:Lion")
    assert (card.name, card.frameworks) == ("lion", ("torch",))
    assert {"lr", "weight_decay"} <= set(card.hyperparameters)
    assert run(card, "pytorch_optimizer:Lion", "torch", lr=0.01) < 0


def test_a_transformation_of_optax_contrib_without_a_card() -> None:
    card = resolve("optax.contrib:dowg", framework="jax")
    assert card.frameworks == ("jax",)
    prodigy = resolve("optax.contrib:prodigy")
    assert "learning_rate" in prodigy.hyperparameters
    assert run(prodigy, "optax.contrib:prodigy", "jax", learning_rate=1.0) < 0


def test_a_step_size_without_a_default_gets_one_and_anything_else_is_refused() -> None:
    assert resolve("optax:sgd").hyperparameters["learning_rate"].default == 1e-3
    with pytest.raises(
        CardError, match=r"optax:clip: the constructor's 'max_delta' has no default: write a card for it"
    ):
        resolve("optax:clip")


@pytest.mark.parametrize(
    ("needs", "family"),
    [(["loss"], "zeroth-order"), (["gradient"], "first-order"), (["gradient", "hvp"], "second-order"),
     (["layer_statistics"], "second-order")],
)  # fmt: skip
def test_needs_are_the_users_or_the_classs_and_give_the_family(needs: list[str], family: str, tmp_path: Path) -> None:
    card = resolve("torch.optim:SGD", needs)
    assert [q.value for q in card.needs] == needs
    assert card.family == family
    file = tmp_path / f"{'_'.join(needs)}.py"
    file.write_text(OPTIMISER.replace('("gradient",)', repr(tuple(needs))))
    assert [q.value for q in resolve(f"{file}:Halving").needs] == needs


def test_a_need_that_does_not_exist_is_refused() -> None:
    with pytest.raises((CardError, ValueError), match="hessian"):
        resolve("torch.optim:SGD", ["hessian"])


def test_an_entry_point_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("borrowed", "torch.optim:Rprop", "curvebench.methods")
    monkeypatch.setattr(sys.modules["curvebench.methods.resolve"], "entry_points", lambda group: [point])
    card = resolve("borrowed")
    assert (card.title, card.frameworks) == ("Rprop", ("torch",))
    with pytest.raises(UnknownNameError, match="unknown method 'borowed': did you mean 'borrowed'"):
        resolve("borowed")
    assert resolve("adam") is cards.method("adam"), "the registry comes first"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("adamm", r"unknown method 'adamm': did you mean 'adam'"),
        ("no_such_package.opt:Thing", r"cannot import 'no_such_package.opt': ModuleNotFoundError: No module named"),
        ("torch.optim:Adamm", r"torch.optim:Adamm: 'torch.optim' has no attribute 'Adamm': did you mean 'Adam"),
        ("nowhere/opt.py:Thing", r"nowhere/opt.py: no such file"),
        ("nowhere/card.toml", r"nowhere/card.toml: cannot be read: No such file"),
        ("torch.optim.lr_scheduler:EPOCH_DEPRECATION_WARNING", "neither an optimiser class nor a function"),
    ],
)
def test_wrong_references_say_what_is_wrong(reference: str, sentence: str) -> None:
    with pytest.raises(CardError, match=sentence):
        resolve(reference)


def test_a_module_that_raises_on_import_gives_its_own_reason(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("raise RuntimeError('no licence found')\n")
    with pytest.raises(CardError, match=r"cannot import .*: RuntimeError: no licence found"):
        load_target(f"{file}:Thing")


def test_a_class_of_the_other_framework_is_refused() -> None:
    with pytest.raises(CardError, match="SGD: belongs to torch, not to jax"):
        resolve("torch.optim:SGD", framework="jax")
    with pytest.raises(CardError, match="belongs to jax, not to torch"):
        resolve("optax:sgd", framework="torch")


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder, name in (("a", "First"), ("b", "Second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "opt.py").write_text(OPTIMISER.replace("Halving", name))
    assert resolve(f"{tmp_path}/a/opt.py:First").title == "First"
    assert resolve(f"{tmp_path}/b/opt.py:Second").title == "Second"
