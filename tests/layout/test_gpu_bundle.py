"""The bundle for a GPU machine: what goes in, what is refused, and its script, with stand-ins for the heavy parts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"curvebench_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load(TOOLS / "gpu_bundle.py")


@pytest.fixture(scope="module")
def on_machine() -> ModuleType:
    return load(TOOLS / "gpu" / "install_bundle.py")


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_the_closure_follows_needs_and_leaves_heavy_packages_out(tool: ModuleType) -> None:
    found = tool.closure(["pydantic>=2", "pooch", "torch", "seaborn"], tool.target_environment("3.12"))
    assert {"pydantic", "pydantic-core", "annotated-types", "pooch", "platformdirs", "requests", "seaborn"} <= set(
        found
    )
    assert not set(found) & {"torch", "numpy", "pandas", "sympy", "networkx"}


def test_the_closure_reads_markers_for_the_machine(tool: ModuleType) -> None:
    environment = tool.target_environment("3.12")
    # pytest wants `colorama` on Windows only.
    assert "colorama" not in tool.closure(["pytest"], environment)
    assert "colorama" in tool.closure(["pytest"], {**environment, "sys_platform": "win32"})


def test_a_package_that_is_not_here_is_named(tool: ModuleType) -> None:
    with pytest.raises(tool.BundleError, match="no-such-package-xyz is not installed"):
        tool.closure(["no-such-package-xyz"], tool.target_environment("3.12"))


def test_a_bundle_that_is_too_large_is_refused_with_its_largest_files(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 10)
    (tmp_path / "large.whl").write_bytes(b"x" * 2**20)
    assert tool.check_size(tmp_path) == 2**20 + 10
    with pytest.raises(tool.BundleError, match=r"1\.0 MiB are more than 1; the largest, in MiB: large\.whl 1\.0"):
        tool.check_size(tmp_path, limit=2**20)


def test_a_failed_bundle_leaves_nothing_behind(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise tool.BundleError("no")

    monkeypatch.setattr(tool, "build_wheel", fail)
    with pytest.raises(tool.BundleError):
        tool.bundle(tmp_path / "bundle", "3.12")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_the_bundle_holds_the_wheel_the_tests_and_the_scripts(tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    total = tool.bundle(folder, "3.12", wheels=False)
    assert total < tool.LIMIT_BYTES
    assert len(list((folder / "wheels").glob("curvebench-*.whl"))) == 1
    assert (folder / "tests" / "conftest.py").exists()
    assert not (folder / "tests" / "layout").exists()
    assert not list(folder.rglob("__pycache__"))
    assert (folder / "methods").is_dir()
    assert "pytest" in (folder / "requirements.txt").read_text()
    for script in ("run.sh", "install_bundle.py"):
        assert (folder / script).read_text() == (TOOLS / "gpu" / script).read_text()


def test_only_what_the_machine_lacks_is_installed(on_machine: ModuleType, tmp_path: Path) -> None:
    made = {
        "absent-one": make_wheel(tmp_path, "absent_one", "1.0", ("absent-two>=2", 'absent-three; extra == "x"')),
        "absent-two": make_wheel(tmp_path, "absent_two", "2.0"),
        "pytest": make_wheel(tmp_path, "pytest", "99.0"),
    }
    chosen, missing = on_machine.choose(["absent-one", "pytest>=8", "absent-four"], made)
    assert [path.name.split("-")[0] for path in chosen] == ["absent_one", "absent_two"]
    assert missing == ["absent-four"]
    # a version that the requirement does not admit is replaced
    chosen, missing = on_machine.choose(["pytest>=98"], made)
    assert chosen == [made["pytest"]]
    assert missing == []


def test_the_script_is_sound_bash() -> None:
    assert subprocess.run(["bash", "-n", str(TOOLS / "gpu" / "run.sh")], check=False).returncode == 0


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """A bundle whose curvebench writes a record and a table, and whose test asserts that it is the one installed."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "tests").mkdir()
    wheel = make_wheel(folder / "wheels", "curvebench", "0.1.0")
    main = (
        "import pathlib, sys\n"
        "records = pathlib.Path(sys.argv[sys.argv.index('--records') + 1])\n"
        "records.mkdir(exist_ok=True)\n"
        "if sys.argv[1] == 'bench':\n"
        "    (records / 'one.json').write_text(' '.join(sys.argv[1:6]))\n"
        "if sys.argv[1] == 'report':\n"
        "    print('table of', sys.argv[sys.argv.index('--study') + 1])\n"
    )
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("curvebench/__main__.py", main)
    (folder / "requirements.txt").write_text("pytest>=8\n")
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu", "nightly"]\n')
    (folder / "tests" / "test_it.py").write_text(
        "import pytest, curvebench\n\n@pytest.mark.gpu\ndef test_it():\n    assert '/site/' in curvebench.__file__\n"
    )
    for name in ("run.sh", "install_bundle.py"):
        (folder / name).write_text((TOOLS / "gpu" / name).read_text())
    return folder


def run_bundle(folder: Path, out: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", **variables}
    environ.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        ["bash", str(folder / "run.sh"), str(out)], env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_script_installs_tests_runs_and_brings_records_back(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "back"
    done = run_bundle(small_bundle, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no CUDA device: the GPU tests skip" in done.stdout
    assert "1 passed" in (out / "pytest.log").read_text()
    assert (out / "table.md").read_text() == "table of quick\n"
    with tarfile.open(out / "records.tar.gz") as archive:
        member = archive.extractfile("records/one.json")
        assert member is not None
        assert member.read().decode().startswith("bench quick --device cpu --records")


@pytest.mark.slow
def test_the_script_fails_with_a_failing_test_and_still_runs_the_study(small_bundle: Path, tmp_path: Path) -> None:
    (small_bundle / "tests" / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.gpu\ndef test_it():\n    assert False\n"
    )
    done = run_bundle(small_bundle, tmp_path / "back")
    assert done.returncode == 1
    assert (tmp_path / "back" / "records.tar.gz").exists()
