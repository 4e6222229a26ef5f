"""The commands of the README and the documentation run as written, with ``CURVEBENCH_SMOKE=1`` and no other change.

A fenced block ``console`` holds commands after ``$ `` and what they print; a block ``bash`` holds commands only; one
that says ``file: NAME`` is written into that file before the commands below it. Only a block whose info string says
``no-test: REASON`` is not run. ``make`` runs in the environment that runs the tests. All run in one copy of the
checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"\bfile:\s*(?P<name>\S+)")
SKIPPED = re.compile(r"\bno-test\b:?\s*(?P<reason>.*)")

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.xdist_group("readme")]


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands, ``line`` being the first of the fence; ``files`` stand above it on its page."""

    page: str
    line: int
    language: str
    info: str
    text: str
    files: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> str:
        """The shell script to run: all of a ``bash`` block, the prompts' lines of a ``console`` block."""
        if self.language == "bash":
            return self.text
        lines = []
        for line in self.text.splitlines():
            continues = line.startswith("> ") and lines and lines[-1].endswith("\\")
            if line.startswith("$ ") or continues:
                lines.append(line[2:])
        return "\n".join(lines) + "\n"


def blocks(text: str, page: str = "page") -> list[Block]:
    """All fenced blocks of shell commands."""
    found: list[Block] = []
    files: list[tuple[str, str]] = []
    for match in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```\s*$", text, re.MULTILINE | re.DOTALL):
        language, info, body = match[1], match[2].strip(), match[3]
        if name := FILE.search(info):
            files.append((name["name"], body))
        elif language in {"console", "bash"}:
            line = text[: match.start()].count("\n") + 1
            found.append(Block(page, line, language, info, body, tuple(files)))
    return found


BLOCKS = [block for page in PAGES if page.exists() for block in blocks(page.read_text(), str(page.relative_to(ROOT)))]
TESTED = [block for block in BLOCKS if not SKIPPED.search(block.info)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks or would track; blocks that stand later see what earlier ones made."""
    folder = tmp_path_factory.mktemp("readme") / "curvebench"
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:  # an unpacked sdist
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__", "dist"))
        return folder
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)  # what `make` would have made there
    return folder


def environ(checkout: Path) -> dict[str, str]:
    """A user's environment: the tests' pins are taken back; ``make`` finds an environment that is installed."""
    kept = {
        k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS") and not k.startswith(("PYTEST", "MAKE"))
    }
    return {
        **kept,
        "CURVEBENCH_SMOKE": "1",
        "NO_INSTALL": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout / "src"),  # before the editable install, which points at the original
        "TESTS": "tests/layout/test_tree.py",  # `make test` must not run this test again
        "VENV": sys.prefix,
    }


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    prelude = "set -eE -o pipefail\ntrap 'echo \"FAILED: $BASH_COMMAND\" >&2' ERR\n"
    return subprocess.run(
        ["bash", "-c", prelude + script],
        cwd=folder,
        env=environ(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("block", TESTED, ids=str)
def test_commands_run_as_written(block: Block, checkout: Path) -> None:
    assert block.commands.strip(), f"{block}: a {block.language} block without a command"
    for name, text in block.files:
        (checkout / name).write_text(text)
    done = run(block.commands, checkout)
    assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def test_the_readme_shows_the_main_command() -> None:
    assert any("make bench" in block.commands for block in TESTED)


def test_what_is_not_run_says_why() -> None:
    reasons = [(str(block), match["reason"]) for block in BLOCKS if (match := SKIPPED.search(block.info))]
    assert all(len(reason) > 10 for _, reason in reasons), reasons


def test_blocks_are_read_as_a_person_reads_them() -> None:
    text = "a\n```console\n$ one \\\n> two\noutput\n$ three\n```\n"
    text += "```bash no-test: needs a GPU\nfour\n```\n```python\nfive\n```\n"
    first, second = blocks(text)
    assert (first.line, first.commands) == (2, "one \\\ntwo\nthree\n")
    assert (second.language, second.commands) == ("bash", "four\n")
    match = SKIPPED.search(second.info)
    assert match is not None
    assert match["reason"] == "needs a GPU"


def test_a_failing_command_is_named(tmp_path: Path) -> None:
    done = run("true\nfalse || true\nls /no/such/folder\necho unreachable\n", tmp_path)
    assert done.returncode != 0
    assert "FAILED: ls /no/such/folder" in done.stderr
    assert "unreachable" not in done.stdout
