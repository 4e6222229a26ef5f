"""Build hook: a wheel carries the cards under ``curvebench/_cards/``; no folder of cards becomes a top-level name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("methods", "tasks", "datasets", "studies", "papers", "results/tuned")
"""Folders of the repository that the installed package reads; those that do not stand yet are passed over."""


class CardsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the card folders to a standard wheel; an editable install reads them where they stand."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Extend ``build_data["force_include"]`` for every data file of :data:`FOLDERS`."""
        if version == "editable":
            return
        for folder in FOLDERS:
            for path in sorted(Path(self.root, folder).rglob("*")):
                if path.is_file() and path.suffix in {".toml", ".json"}:
                    build_data["force_include"][str(path)] = (
                        f"curvebench/_cards/{path.relative_to(self.root).as_posix()}"
                    )
