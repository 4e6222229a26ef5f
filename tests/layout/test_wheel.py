"""What is built holds what it must: the wheel its cards and one top-level name, the sdist all that the wheel needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("methods", "tasks", "datasets", "studies", "papers", "results/tuned")


def data_files() -> set[str]:
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in {".toml", ".json"})
    return {path.relative_to(ROOT).as_posix() for path in found}


def modules() -> set[str]:
    found = (path for path in (ROOT / "src").rglob("*.py"))
    return {path.relative_to(ROOT / "src").as_posix() for path in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout and the wheel made from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def test_the_wheel_carries_the_cards_inside_the_package(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert data_files()
    assert {f"curvebench/_cards/{name}" for name in data_files()} == {n for n in names if "/_cards/" in n}


def test_the_wheel_carries_every_module(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert modules() <= names
    assert "curvebench/py.typed" in names
    web = ROOT / "src" / "curvebench" / "report" / "site" / "web"
    page = {path.relative_to(ROOT / "src").as_posix() for path in web.rglob("*") if path.is_file()}
    assert "curvebench/report/site/web/assets/vendor/d3.LICENSE" in page
    assert page <= names, "the HTML report is files, with their licences"


def test_the_wheel_has_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"curvebench"}


def test_the_wheel_has_the_command_the_licence_and_a_light_core(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("/METADATA")).removesuffix("/METADATA")
    assert "curvebench = curvebench.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    metadata = wheel.read(f"{info}/METADATA").decode()
    core = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert core
    assert not [line for line in core if any(heavy in line for heavy in ("torch", "jax", "pandas", "scipy"))]


def test_the_installed_wheel_finds_its_own_cards(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "from curvebench import cards; print(cards.root()); print(*cards.names('methods'))"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    root, names = done.stdout.splitlines()
    assert Path(root) == tmp_path / "curvebench" / "_cards"
    assert names.split() == sorted(path.stem for path in (ROOT / "methods").glob("*.toml"))


def test_the_sdist_is_complete(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {"Makefile", "LICENSE", "README.md", "constraints.txt", "hatch_build.py", "tools/install.py", "tox.ini"}
    assert wanted <= names
    assert data_files() <= names
    assert not {name.split("/")[0] for name in names} & {".venv", "dist", ".asv"}
