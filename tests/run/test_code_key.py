"""The code key changes with every source that decides a run's numbers, and with no other; it imports no framework."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import tiny

import curvebench
from curvebench.errors import UnknownNameError
from curvebench.run import code
from curvebench.spec import RunSpec

CACHED = ("_key", "_imports", "_path", "_hash", "_versions")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("sources") / "curvebench"
    shutil.copytree(Path(curvebench.__file__).parent, to, ignore=shutil.ignore_patterns("__pycache__"))
    return to


@pytest.fixture
def package(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the sources that the key reads, to be changed; afterwards it is as it was."""
    monkeypatch.setattr(code, "_PACKAGE", copy)
    before = {file: file.read_bytes() for file in copy.rglob("*.py")}
    yield copy
    for file, content in before.items():
        if file.read_bytes() != content:
            file.write_bytes(content)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    forget()


def forget() -> None:
    for name in CACHED:
        getattr(code, name).cache_clear()


def key(spec: RunSpec) -> str:
    """What a new process would say."""
    forget()
    found = code.code_key(spec)
    assert len(found) == 64
    assert set(found) <= set("0123456789abcdef")
    return found


def touch(file: Path) -> None:
    assert file.is_file()
    file.write_text(file.read_text() + "\n")


def test_the_key_is_the_same_for_the_same_sources(package: Path) -> None:
    spec = tiny.run_spec("adahessian")
    assert key(spec) == key(spec)
    assert key(spec) == key(tiny.run_spec("adahessian", seed_block=3, lr=0.5)), "it is about code, not about the spec"


@pytest.mark.parametrize(
    "file",
    [
        "methods/adahessian_torch.py", "methods/adapter_torch.py", "methods/validation.py", "methods/resolve.py",
        "run/loop.py", "run/execute.py", "run/engine_torch.py", "clock.py", "oracle/torch.py", "oracle/ledger.py",
        "oracle/draws.py", "oracle/streams_torch.py", "oracle/batchnorm_torch.py", "oracle/standalone_torch.py",
        "tasks/logistic.py", "tasks/least_squares.py", "tasks/problem.py", "tasks/runtime_torch.py",
        "data/breast_cancer.py", "data/scikit_learn.py", "spec.py", "cards/interval.py", "machine.py",
    ],
)  # fmt: skip
def test_a_byte_of_what_the_run_uses_changes_the_key(package: Path, file: str) -> None:
    spec = tiny.run_spec("adahessian", "logistic-breast-cancer")
    before = key(spec)
    touch(package / file)
    assert key(spec) != before


@pytest.mark.parametrize(
    "file",
    [
        "methods/mezo_torch.py", "methods/adahessian_jax.py", "methods/adapter_jax.py", "run/engine_jax.py",
        "tasks/digits_cnn.py", "tasks/cifar_resnet.py", "data/digits.py", "data/cifar.py", "tasks/runtime_jax.py",
    ],
)  # fmt: skip
def test_a_byte_of_what_it_does_not_use_leaves_the_key(package: Path, file: str) -> None:
    spec = tiny.run_spec("adahessian", "logistic-breast-cancer")
    before = key(spec)
    touch(package / file)
    for folder in ("cli", "schedule", "report", "store", "procedures"):
        for other in (package / folder).glob("*.py"):
            touch(other)
    assert key(spec) == before


def test_what_a_method_imports_from_another_is_its_code_too(package: Path) -> None:
    borrowed = package / "methods" / "adahessian_torch.py"
    borrowed.write_text("from curvebench.methods.mezo_torch import MeZO\n" + borrowed.read_text())
    spec = tiny.run_spec("adahessian")
    before = key(spec)
    touch(package / "methods" / "mezo_torch.py")
    assert key(spec) != before


def test_methods_tasks_and_frameworks_have_keys_of_their_own(package: Path) -> None:
    specs = [
        tiny.run_spec("adahessian"), tiny.run_spec("mezo"), tiny.run_spec("adahessian", framework="jax"),
        tiny.run_spec("adahessian", "logistic-breast-cancer"), tiny.run_spec("adahessian", "digits-cnn"),
    ]  # fmt: skip
    assert len({key(spec) for spec in specs}) == len(specs)
    assert key(tiny.run_spec("sgd")) == key(tiny.run_spec("adam")), "both are torch.optim through one adapter"


def test_a_new_version_of_a_library_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {framework: key(tiny.run_spec("sgd", framework=framework)) for framework in tiny.FRAMEWORKS}
    real = code.version
    for library, frameworks in (
        ("torch", {"torch"}),
        ("optax", {"jax"}),
        ("jaxlib", {"jax"}),
        ("numpy", {"torch", "jax"}),
    ):
        monkeypatch.setattr(code, "version", lambda name, new=library: "999" if name == new else real(name))
        for framework in tiny.FRAMEWORKS:
            assert (key(tiny.run_spec("sgd", framework=framework)) != before[framework]) == (framework in frameworks)


OPTIMISER = """
import torch


class Mine(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)
"""


@pytest.mark.parametrize("way", ["file", "module", "package", "card"])
def test_a_third_partys_file_is_covered(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"mine_by_{way}"
    file = tmp_path / f"{name}.py"
    reference = f"{file}:Mine"
    if way == "module":
        reference = f"{name}:Mine"
    elif way == "package":
        file = tmp_path / name / "__init__.py"
        file.parent.mkdir()
        reference = f"{name}:Mine"
    file.write_text(OPTIMISER)
    if way == "card":
        card = tmp_path / "mine.toml"
        card.write_text(
            'name = "mine"\ntitle = "Mine"\nfamily = "first-order"\nsummary = "mine"\nneeds = ["gradient"]\n'
            f'[implementation.torch]\ntarget = "{file}:Mine"\n'
        )
        reference = str(card)
    spec = tiny.run_spec(reference)
    before = key(spec)
    touch(file)
    assert key(spec) != before
    after = key(spec)
    (tmp_path / "other.py").write_text("")
    assert key(spec) == after


@pytest.mark.parametrize("method", ["pytorch_optimizer:Lion", "lion", "prodigy"])
def test_a_wrapped_librarys_version_is_covered(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Named directly, by a card, and imported by a thin adapter of ours."""
    pytest.importorskip("pytorch_optimizer")
    spec = RunSpec.from_json({**tiny.run_spec("sgd").to_json(), "method": method})
    before = key(spec)
    real = code.version
    monkeypatch.setattr(
        code, "version", lambda name: "999" if name.replace("-", "_") == "pytorch_optimizer" else real(name)
    )
    assert key(spec) != before


def test_entry_points_are_found_and_unknown_names_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "entry_points", lambda group: [EntryPoint("borrowed", "torch.optim:SGD", group)])
    data = tiny.run_spec("sgd").to_json()
    assert key(RunSpec.from_json({**data, "method": "borrowed"})) == key(
        RunSpec.from_json({**data, "method": "torch.optim:SGD"})
    )
    with pytest.raises(UnknownNameError, match="unknown method 'borowed': did you mean 'borrowed'"):
        key(RunSpec.from_json({**data, "method": "borowed"}))


def test_the_key_needs_no_framework() -> None:
    """Planning a study of thousands of runs is a matter of hashing: neither framework is imported for it."""
    script = (
        "import sys\n"
        "from curvebench.run import code_key\n"
        "from curvebench.spec import Budget, RunSpec\n"
        "for framework in ('torch', 'jax'):\n"
        "    for method in ('adahessian', 'mezo', 'sgd', 'lbfgs'):\n"
        "        for task in ('digits-cnn', 'cifar10-resnet20'):\n"
        "            rest = ((), ('gradient',), framework, 'cpu', 'float32', 0, Budget(1))\n"
        "            code_key(RunSpec(task, 'quick', method, *rest))\n"
        "loaded = {'torch', 'jax', 'optax', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
