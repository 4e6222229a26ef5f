"""Imports point down, and what lists cards or builds tables loads neither framework."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "curvebench"
HEAVY = ("torch", "jax", "pandas", "seaborn", "matplotlib", "scipy", "sklearn")
ALLOWED = {"statistics": {"scipy"}, "report": {"scipy"}}
"""SciPy is what statistics are written in; the command line imports the rooms that need it when it needs them."""
LIGHT = ("cards", "store", "machine", "report", "statistics",
         "kernels.reference_kronecker", "kernels.reference_mfac", "kernels.reference_newton",
         "kernels.reference_transforms", "kernels.reference_zeroth")  # fmt: skip
"""Rooms that may need no framework; those of the design that do not stand yet are passed over."""


def stands(room: str) -> bool:
    path = SOURCE.joinpath(*room.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def contracts() -> list[dict[str, object]]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return list(config["contracts"])


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as f; f()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_imports_point_down() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("spec.py", "from curvebench import cards"),
        ("report/__init__.py", "import torch"),
        ("store/__init__.py", "def f() -> None:\n    import jax"),
    ],
)
def test_an_import_that_points_up_is_found(tmp_path: Path, file: str, line: str) -> None:
    folder = copy(tmp_path)
    with (folder / "src" / "curvebench" / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    done = lint(folder)
    assert done.returncode == 1
    assert f"curvebench.{file.split('/')[0].removesuffix('.py')}" in done.stdout


def test_a_new_module_must_be_placed(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    (folder / "src" / "curvebench" / "stranger.py").write_text('"""Belongs nowhere."""\n')
    done = lint(folder)
    assert done.returncode == 1
    assert "stranger" in done.stdout


@pytest.mark.parametrize("room", [room for room in LIGHT if stands(room)])
def test_light_rooms_are_named_in_a_contract(room: str) -> None:
    named = [c["source_modules"] for c in contracts() if {"torch", "jax"} <= set(c.get("forbidden_modules", ()))]  # type: ignore[call-overload]
    assert any(f"curvebench.{room}" in modules for modules in named)  # type: ignore[operator]


@pytest.mark.parametrize("room", [*(room for room in LIGHT if stands(room)), "cli.main"])
def test_importing_a_light_room_loads_nothing_heavy(room: str) -> None:
    code = f"import sys, curvebench.{room}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= ALLOWED.get(room, set())
