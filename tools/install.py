"""Make the virtual environment that the Makefile's verbs run in. Standard library only; prints what it does.

The second call is a no-op: a stamp in the environment holds the hash of everything that decides what is installed. The
stamp is written last, so an installation that was interrupted is taken up again, and one that does not work is rebuilt.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
STAMP = "curvebench-install.json"
TORCH = "2.13.0"
"""The release of torch that constraints.txt was tried with."""
TORCH_RANGE = "torch>=2.6"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_SECONDS = 5.0
EXTRAS = "all,docs,dev"
OPINIONS = "second-opinions"
"""The dependency group that is installed without its needs: see pyproject.toml."""
DECIDING = ("build-system", "project", "dependency-groups")
"""Tables of pyproject.toml that decide what is installed."""
CHECK = "import curvebench, click, numpy, pydantic, rich, torch, jax, optax, pandas, scipy, sklearn, pytest"
"""What must import before an environment counts as installed."""


class InstallError(Exception):
    """The environment cannot be made; the message says what to do."""


class BrokenError(InstallError):
    """Everything is installed as far as pip knows, and it does not import."""


def say(text: str) -> None:
    """Print a line at once, so that it stands before the output of the command that it announces."""
    print(f"install: {text}", flush=True)


class Environment:
    """A virtual environment at ``path`` that may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self.stamp = path / STAMP

    def config(self) -> dict[str, str]:
        """Return the keys of ``pyvenv.cfg``, empty when there is none."""
        try:
            lines = (self.path / "pyvenv.cfg").read_text().splitlines()
        except OSError:
            return {}
        return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}

    def key(self, torch: str, system_site: bool) -> str:
        """sha256 of what decides the content of the environment: another value means that it must be installed anew."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        parts = [
            json.dumps([project[name] for name in DECIDING] + [project["tool"]["hatch"]], sort_keys=True),
            CONSTRAINTS.read_text(),
            Path(__file__).read_text(),
            self.config().get("version", ""),
            str(ROOT),  # an editable install points at the checkout
            torch,
            str(system_site),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def read_stamp(self) -> dict[str, Any]:
        """Return the stamp, empty when there is none that can be read."""
        try:
            return dict(json.loads(self.stamp.read_text()))
        except (OSError, ValueError):
            return {}

    def write_stamp(self, key: str, files: Sequence[Path] = (), made: bool | None = None) -> None:
        """Write the stamp; ``made``: this script made the environment and may remove it (None: as before)."""
        made = self.read_stamp().get("made", False) if made is None else made
        self.stamp.write_text(json.dumps({"key": key, "made": made, "files": [str(path) for path in files]}) + "\n")

    def stands(self, key: str) -> bool:
        """Whether the stamp holds ``key`` and the files that it vouches for are there (checked without a process)."""
        stamp = self.read_stamp()
        wanted = [self.python, self.path / "bin" / "curvebench", *map(Path, stamp.get("files", []))]
        return stamp.get("key") == key and all(path.exists() for path in wanted)

    def works(self) -> bool:
        """Whether the interpreter starts, is new enough and finds pip."""
        code = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
        return self.python.exists() and call(self.python, "-c", code).returncode == 0

    def create(self, system_site: bool) -> None:
        """Make the environment, in place of one that does not work.

        Raises:
            InstallError: the folder holds something else, which is left alone.
        """
        if self.path.exists() and any(self.path.iterdir()):
            if not self.config() and not self.read_stamp().get("made"):
                raise InstallError(f"{self.path} is not a virtual environment; name another folder: make VENV=...")
            say(f"{self.path} does not work; making it anew")
            shutil.rmtree(self.path)
        # A virtual environment made from one that is about to be removed would not outlive it.
        base = (
            getattr(sys, "_base_executable", sys.executable) if in_folder(sys.executable, self.path) else sys.executable
        )
        say(f"Python {platform.python_version()} environment in {self.path}")
        self.path.mkdir(parents=True)
        self.write_stamp("", made=True)
        run(base, "-m", "venv", *(["--system-site-packages"] if system_site else []), str(self.path))

    def site_packages(self) -> Path:
        """Return the folder that pip installs into."""
        return Path(self.ask("import sysconfig; print(sysconfig.get_path('purelib'))"))

    def ask(self, code: str) -> str:
        """Return what ``code`` prints in the environment, empty when it fails."""
        done = call(self.python, "-c", code)
        return done.stdout.strip() if done.returncode == 0 else ""

    def pip(self, *arguments: str) -> None:
        """Run pip and show its errors; its warnings speak of indexes that this machine is set up with."""
        run(self.python, "-m", "pip", *arguments, "-qq", "--disable-pip-version-check")


def in_folder(path: str, folder: Path) -> bool:
    """Whether ``path``, links not followed, lies in ``folder``."""
    return Path(os.path.abspath(path)).is_relative_to(folder)


def environ() -> dict[str, str]:
    """Return this process's environment without what would show Python other packages than the environment's own."""
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET"}}
    return {**kept, "PYTHONSAFEPATH": "1"}  # the working directory is a checkout whose folders are importable


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command, its output captured; a failure is the caller's to judge."""
    try:
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environ(), check=False)
    except OSError as error:
        return subprocess.CompletedProcess(list(map(str, command)), 127, "", str(error))


def run(*command: str | Path) -> None:
    """Run a command, its output shown.

    Raises:
        InstallError: it failed.
    """
    words = list(map(str, command))
    if subprocess.run(words, env=environ(), check=False).returncode:
        raise InstallError(f"this command failed: {' '.join(words)}")


def installed_torch(environment: Environment) -> str:
    """Return the version of torch in the environment, empty without one."""
    return environment.ask("import importlib.metadata as m; print(m.version('torch'))")


def local_cpu_wheel(environment: Environment) -> str:
    """Return the version of a CPU wheel of torch among pip's configured ``find-links``, empty when there is none.

    ``--no-index`` keeps the question on this machine; a local version label ``+cpu`` tells a CPU build from CUDA's.
    """
    for requirement in (f"torch=={TORCH}", TORCH_RANGE):
        done = call(
            environment.python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-index", "--no-deps",
            "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--report", "-", requirement,
        )  # fmt: skip
        if done.returncode == 0:
            version = str(json.loads(done.stdout)["install"][0]["metadata"]["version"])
            if version.endswith("+cpu"):
                return version
    return ""


def cpu_index_answers() -> bool:
    """Whether PyTorch's own index of CPU builds answers in time."""
    request = urllib.request.Request(f"{CPU_INDEX}/torch/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=CPU_INDEX_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def install_torch(environment: Environment, choice: str) -> None:
    """Install torch: a local CPU wheel, else from PyTorch's CPU index, else plain; ``cuda`` takes the plain package."""
    present = installed_torch(environment)
    if present and not (choice == "cuda" and present.endswith("+cpu")):
        say(f"torch {present} is there")
        return
    upgrade = ["--force-reinstall"] if present else []
    if choice == "cpu":
        if version := local_cpu_wheel(environment):
            say(f"torch {version}, a CPU build on this machine's disk")
            environment.pip("install", "--no-index", "--no-deps", f"torch=={version}")
            return
        if cpu_index_answers():
            say(f"torch {TORCH}, a CPU build of about 200 MB, from PyTorch's own index")
            try:
                environment.pip("install", "--index-url", CPU_INDEX, "--no-deps", f"torch=={TORCH}")
            except InstallError:
                say(f"it has no torch {TORCH} for this Python; taking its newest")
                environment.pip("install", "--index-url", CPU_INDEX, "--no-deps", TORCH_RANGE)
            return
        say("no CPU build of torch on this disk, and PyTorch's own index does not answer")
    if sys.platform == "linux" and platform.machine() == "x86_64":
        say("the plain torch, built for CUDA: about 3 GB to download, 6 GB on disk")
    else:
        say("the plain torch, which is a CPU build on this platform: about 200 MB")
    try:
        environment.pip("install", *upgrade, "-c", str(CONSTRAINTS), f"torch=={TORCH}")
    except InstallError:
        say(f"no torch {TORCH} for this Python; taking the newest")
        environment.pip("install", *upgrade, "-c", str(CONSTRAINTS), TORCH_RANGE)


def install_packages(environment: Environment) -> None:
    """Install curvebench, editable, with its extras at the versions of constraints.txt, torch held at what is there."""
    say(f"curvebench[{EXTRAS}] with the versions of constraints.txt; this takes a minute or a few")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    environment.pip("install", "-c", str(CONSTRAINTS), *build)
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder, "torch.txt")
        held.write_text(f"torch=={installed_torch(environment)}\n")
        # Without build isolation: the backend just installed is the pinned one, and no second download is needed.
        environment.pip(
            "install", "-c", str(CONSTRAINTS), "-c", str(held), "--no-build-isolation", "-e", f"{ROOT}[{EXTRAS}]"
        )
    environment.pip("install", "--no-deps", "-c", str(CONSTRAINTS), *opinions())


def opinions() -> list[str]:
    """Return the packages that the tests compare with, which must come without what they declare to need."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][OPINIONS])


def link_packages(environment: Environment) -> list[Path]:
    """Build on the packages of the interpreter that made the environment: no index and no build backend needed.

    Returns:
        The files written.

    Raises:
        InstallError: a package of the core is missing and no index offers it.
    """
    site = environment.site_packages()
    # An environment made from another one sees the packages of *its* base, not the other's: link them by path.
    parents = [] if in_folder(sys.executable, environment.path) else [p for p in sys.path if p.endswith("-packages")]
    link = site / "_curvebench_parent.pth"
    if parents or not link.exists():
        link.write_text("".join(f"{path}\n" for path in parents))
    source = site / "_curvebench.pth"
    source.write_text(f"{ROOT / 'src'}\n")
    script = environment.path / "bin" / "curvebench"
    script.write_text(f"#!{environment.python}\nimport sys\nfrom curvebench.cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        line for name in ("torch", "jax", "report", "data", "dev") for line in project["optional-dependencies"][name]
    ]
    for requirement in unmet(environment, [*project["dependencies"], *extras]):
        # One by one: a linter that no index offers must not keep a package of the core out.
        call(environment.python, "-m", "pip", "install", "-qq", "--retries", "0", "--timeout", "5", requirement)
    for requirement in unmet(environment, opinions()):
        call(environment.python, "-m", "pip", "install", "-qq", "--no-deps", "--retries", "0", "--timeout", "5",
             requirement)  # fmt: skip
    if missing := unmet(environment, project["dependencies"]):
        raise InstallError(f"no index offers {', '.join(missing)}; carry them as wheels: see make gpu-bundle")
    if missing := unmet(environment, [*extras, *opinions()]):
        say(f"going on without {', '.join(missing)}: what needs them says so")
    return [link, source]


def unmet(environment: Environment, requirements: Sequence[str]) -> list[str]:
    """Return those of ``requirements`` that the environment's packages do not meet."""
    code = (
        "import json, sys\n"
        "from importlib.metadata import PackageNotFoundError, version\n"
        "from pip._vendor.packaging.requirements import Requirement\n"
        "def met(r):\n"
        "    try:\n"
        "        return r.specifier.contains(version(r.name), prereleases=True)\n"
        "    except PackageNotFoundError:\n"
        "        return False\n"
        f"print(json.dumps([line for line in {list(requirements)!r} if not met(Requirement(line))]))\n"
    )
    return list(json.loads(environment.ask(code)))


def install(environment: Environment, torch: str, system_site: bool) -> None:
    """Bring the environment to the state that the stamp vouches for.

    Raises:
        InstallError: it cannot be done.
    """
    if not environment.works():
        environment.create(system_site)
    environment.write_stamp("")
    files: list[Path] = []
    if system_site:
        files = link_packages(environment)
        check = "import curvebench, click, numpy, pydantic, rich"
    else:
        install_torch(environment, torch)
        install_packages(environment)
        check = CHECK
    done = call(environment.python, "-c", check)
    if done.returncode:
        raise BrokenError(f"what was installed does not import:\n{done.stderr.strip()}")
    environment.write_stamp(environment.key(torch, system_site), files)


def main() -> int:
    """Parse the command line, install unless the stamp stands; return the exit code."""
    parser = argparse.ArgumentParser(description="Install curvebench into a virtual environment of its own.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment")
    parser.add_argument("--torch", choices=("cpu", "cuda"), default="cpu", help="which build of torch")
    parser.add_argument("--system-site", action="store_true", help="build on the packages of the running Python")
    parser.add_argument("--force", action="store_true", help="install although the stamp stands")
    options = parser.parse_args()
    environment = Environment(Path(os.path.abspath(options.venv)))
    if not options.force and environment.stands(environment.key(options.torch, options.system_site)):
        return 0
    name = hashlib.sha256(str(environment.path).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir(), f"curvebench-install-{name}-{os.getuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second finds the stamp of the first
        if not options.force and environment.stands(environment.key(options.torch, options.system_site)):
            return 0
        start = time.monotonic()
        fresh = not environment.path.exists()
        try:
            try:
                install(environment, options.torch, options.system_site)
            except BrokenError as error:
                # pip mends what it knows to be missing; files lost from a package it believes in need a fresh start.
                if fresh:
                    raise
                if not environment.read_stamp().get("made"):
                    raise InstallError(f"{error}\nremove {environment.path} and run the same command again") from error
                say(f"{error}\ninstall: making {environment.path} anew")
                shutil.rmtree(environment.path)
                install(environment, options.torch, options.system_site)
        except InstallError as error:
            print(f"install: {error}", file=sys.stderr)
            return 2
        say(f"done in {time.monotonic() - start:.0f} s; the next call is instant")
    return 0


if __name__ == "__main__":
    sys.exit(main())
