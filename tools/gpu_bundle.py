"""Write ``dist/gpu-bundle``: what a GPU machine without a package index needs to run the GPU tests and the quick study.

The machine is expected to hold the heavy packages (:data:`EXPECTED`) in the Python that ``run.sh`` is told to use; the
bundle carries curvebench's wheel, wheels of everything lighter, the tests and ``run.sh``. There,
``install_bundle.py`` installs into a folder of its own only what the machine lacks.

The extra ``bert`` (transformers, tokenizers) and the data sets are not carried: tests of BERT tasks in torch skip there
unless the machine has them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 64 * 2**20
"""What may travel to a lent machine in one go."""

EXPECTED = frozenset({"torch", "jax", "jaxlib", "numpy", "scipy", "pandas", "matplotlib", "scikit-learn", "ml-dtypes"})
"""Packages too large to carry, present wherever both frameworks are set up; their own needs are not followed."""

TEST_PACKAGES = (
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "pytest-benchmark",
    "hypothesis",
    "beartype",
    "jaxtyping",
)
"""Those of the extra ``dev`` that the tests import; linters and type checkers stay here."""

CONTENT = ("pyproject.toml", "methods", "tasks", "datasets", "studies", "papers", "results/tuned")
"""What lies beside the tests in a checkout and is read by them; absent ones are passed over."""

CHECKOUT_TESTS = ("layout", "docs", "peers")
"""Folders of tests that are about a checkout or about the speed of this machine."""


class BundleError(Exception):
    """The bundle cannot be written; the message says why."""


def target_environment(python: str) -> dict[str, str]:
    """Return the values of requirement markers on a Linux machine with the interpreter ``python``, e.g. ``3.12``."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def closure(requirements: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return name -> version, as installed here, of all that ``requirements`` lead to but :data:`EXPECTED`.

    Raises:
        BundleError: one of them is not installed here, so that no version of it is known to work.
    """
    found: dict[str, str] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras)
        if name in EXPECTED or (name, extras) in visited:
            continue
        visited.add((name, extras))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise BundleError(f"{name} is not installed in {sys.prefix}: make install") from error
        found[name] = distribution.version
        for line in distribution.requires or ():
            inner = Requirement(line)
            active = [{**environment, "extra": extra} for extra in (extras or {""})]
            if inner.marker is None or any(inner.marker.evaluate(dict(values)) for values in active):
                waiting.append(inner)
    return found


def download(packages: Mapping[str, str], python: str, folder: Path) -> None:
    """Fetch a wheel of each package for the target through pip as it is set up here.

    Raises:
        BundleError: pip finds no wheel for one of them.
    """
    # pip matches the N of manylinux_2_N exactly, so the usual ones are named.
    platforms = [f"manylinux_2_{n}_x86_64" for n in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    for name in platforms:
        command += ["--platform", name]
    command += [f"{name}=={version}" for name, version in sorted(packages.items())]
    if subprocess.run(command, check=False).returncode:
        raise BundleError("pip could not fetch every wheel")


def build_wheel(folder: Path) -> Path:
    """Build curvebench's wheel into ``folder``.

    Raises:
        BundleError: the build failed.
    """
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"the wheel does not build:\n{done.stdout}{done.stderr}")
    return next(folder.glob("curvebench-*.whl"))


def copy_content(folder: Path) -> None:
    """Copy the tests, what they read of a checkout, and the scripts that run on the machine."""
    ignored = shutil.ignore_patterns("__pycache__", *CHECKOUT_TESTS)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignored)
    for name in CONTENT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copy2(source, folder / name)
    for name in ("run.sh", "install_bundle.py"):
        shutil.copy2(ROOT / "tools" / "gpu" / name, folder / name)


def check_size(folder: Path, limit: int = LIMIT_BYTES) -> int:
    """Return the bytes of all files below ``folder``.

    Raises:
        BundleError: they are more than ``limit``: names the largest.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > limit:
        largest = ", ".join(f"{p.name} {sizes[p] / 2**20:.1f}" for p in sorted(sizes, key=lambda p: -sizes[p])[:3])
        raise BundleError(f"{total / 2**20:.1f} MiB are more than {limit / 2**20:.0f}; the largest, in MiB: {largest}")
    return total


def bundle(folder: Path, python: str, wheels: bool = True) -> int:
    """Write the bundle anew and return its bytes; without ``wheels`` nothing is fetched.

    Raises:
        BundleError: a part is missing or the whole is too large; what was written is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    try:
        build_wheel(folder / "wheels")
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        lines = [
            *project["dependencies"],
            *(line for e in ("torch", "jax", "baselines", "report", "data") for line in extras[e]),
        ]
        named = {str(canonicalize_name(Requirement(line).name)): line for line in extras["dev"]}
        tests = [named[name] for name in TEST_PACKAGES]
        packages = closure([*lines, *tests], target_environment(python))
        if wheels:
            download(packages, python, folder / "wheels")
        # install_bundle.py installs what these lines lead to and the machine lacks.
        (folder / "requirements.txt").write_text("\n".join([*lines, *tests]) + "\n")
        copy_content(folder)
        return check_size(folder)
    except BundleError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def main() -> int:
    """Parse the command line, write the bundle, say what it holds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "gpu-bundle", help="folder, written anew")
    parser.add_argument("--python", default="3.12", help="minor version of the machine's Python")
    options = parser.parse_args()
    try:
        total = bundle(options.output, options.python)
    except BundleError as error:
        print(f"gpu-bundle: {error}", file=sys.stderr)
        return 2
    for wheel in sorted((options.output / "wheels").iterdir()):
        print(f"{wheel.stat().st_size / 2**20:8.2f} MiB  {wheel.name}")
    print(f"{total / 2**20:8.2f} MiB  {options.output} (limit {LIMIT_BYTES / 2**20:.0f} MiB, Python {options.python})")
    print("not in it: the extra bert (transformers, tokenizers); tests of BERT tasks in torch skip where it is absent")
    print("on the GPU machine: bash run.sh FOLDER   (writes records.tar.gz, table.md and logs there)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
