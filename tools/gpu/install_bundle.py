"""Install from a folder of wheels, without an index, what ``requirements.txt`` leads to and this Python lacks.

    python3 install_bundle.py BUNDLE TARGET

Runs on the GPU machine; needs pip and nothing else. What the machine has and the requirements admit is left as it is.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename


def requires(wheel: Path) -> list[str]:
    """Return the requirement lines in a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []


def met(requirement: Requirement) -> bool:
    """Whether this Python holds a version that the requirement admits."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def choose(lines: list[str], wheels: dict[str, Path]) -> tuple[list[Path], list[str]]:
    """Return the wheels to install, and the requirements that neither this Python nor the wheels meet."""
    chosen: dict[str, Path] = {}
    missing: list[str] = []
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name in chosen or met(requirement):
            continue
        if name in wheels:
            chosen[name] = wheels[name]
            waiting.extend(Requirement(line) for line in requires(wheels[name]))
        else:
            missing.append(str(requirement))
    return sorted(chosen.values()), sorted(set(missing))


def main() -> int:
    """Install curvebench and what is lacking into the target folder; return the exit code."""
    bundle, target = Path(sys.argv[1]), Path(sys.argv[2])
    wheels = {str(parse_wheel_filename(path.name)[0]): path for path in (bundle / "wheels").glob("*.whl")}
    curvebench = wheels.pop("curvebench")  # always this one, whatever is installed
    chosen, missing = choose((bundle / "requirements.txt").read_text().split("\n")[:-1], wheels)
    if missing:
        print(f"neither {sys.executable} nor the bundle has: {', '.join(missing)}", file=sys.stderr)
        return 2
    paths = [curvebench, *chosen]
    print(f"installing into {target}: {', '.join(path.name.split('-')[0] for path in paths)}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--target", str(target), *map(str, paths)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
