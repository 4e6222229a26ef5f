"""Checked-out source trees of commits, for procedures that compare them; the user's own checkout is never touched."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from curvebench.errors import CurvebenchError

WORKING_TREE = "."
"""The name of the checkout as it is, changes that are not committed included."""


@dataclass(frozen=True)
class Tree:
    """A source tree.

    Args:
        name: what the user called it.
        commit: the full hash; of the working tree, the one that it is based on.
        path: where it lies.
        changes: files that differ from the commit; 0 for a tree that is one.
    """

    name: str
    commit: str
    path: Path
    changes: int = 0

    def __str__(self) -> str:
        if self.name != WORKING_TREE:
            return f"{self.name} ({self.commit[:10]})" if not self.commit.startswith(self.name) else self.commit[:10]
        return f"working tree ({self.commit[:10]}" + (f" and {self.changes} changed files)" if self.changes else ")")


def git(root: Path, *words: str) -> str:
    """What git prints.

    Raises:
        CurvebenchError: git is not there, or refuses; with its own words.
    """
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CurvebenchError("git is not installed: commits cannot be compared without it") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise CurvebenchError(f"git {words[0]}: {reason}")
    return done.stdout.strip()


def resolve(root: Path, name: str) -> str:
    """The full hash of a commit.

    Raises:
        CurvebenchError: this is no checkout with a history, or there is no such commit.
    """
    if not (root / ".git").exists():
        raise CurvebenchError(f"{root} is not a git checkout: there are no commits to compare (an unpacked archive?)")
    commit = "HEAD" if name == WORKING_TREE else name
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    except CurvebenchError as error:
        shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
        hint = "; this clone is shallow: git fetch --unshallow" if shallow else ""
        raise CurvebenchError(f"commit = {name!r}: there is no such commit{hint}") from error


@contextmanager
def trees(root: Path, *names: str) -> Iterator[tuple[Tree, ...]]:
    """The trees of the named commits, checked out into a temporary folder that is removed afterwards."""
    found: list[Tree] = []
    added: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="curvebench-trees-") as folder:
        try:
            for number, name in enumerate(names):
                commit = resolve(root, name)
                if name == WORKING_TREE:
                    changes = len(git(root, "status", "--porcelain").splitlines())
                    found.append(Tree(name, commit, root, changes))
                    continue
                path = Path(folder) / str(number)
                git(root, "worktree", "add", "--detach", "--quiet", str(path), commit)
                added.append(path)
                found.append(Tree(name, commit, path))
            yield tuple(found)
        finally:
            for path in added:
                git(root, "worktree", "remove", "--force", str(path))


def between(root: Path, base: str, head: str) -> list[str]:
    """Hashes of the first-parent commits after ``base`` up to ``head``, oldest first.

    Raises:
        CurvebenchError: ``base`` is not an ancestor of ``head``.
    """
    first, last = resolve(root, base), resolve(root, head)
    commits = git(root, "rev-list", "--reverse", "--first-parent", "--ancestry-path", f"{first}..{last}").splitlines()
    if not commits:
        raise CurvebenchError(f"{head!r} does not come after {base!r}: there is nothing between them to bisect")
    return commits
