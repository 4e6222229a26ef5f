"""How long a person waits for the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class Process:
    """Wall seconds of whole ``curvebench`` processes, interpreter start included."""

    number = 1
    rounds = 1
    repeat = (8, 20, 30.0)  # at least 8 samples, at most 20 or 30 s
    warmup_time = 0.5
    timeout = 120.0

    def setup(self) -> None:
        self.command = str(Path(sys.executable).with_name("curvebench"))

    def _run(self, *words: str) -> None:
        subprocess.run([self.command, *words], stdout=subprocess.DEVNULL, check=True)

    def time_help(self) -> None:
        self._run("--help")

    def time_list_methods(self) -> None:
        self._run("list", "methods")

    def time_list_methods_json(self) -> None:
        self._run("list", "methods", "--json")
