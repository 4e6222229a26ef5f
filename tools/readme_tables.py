"""Put the tables that ``curvebench report`` made into README.md, between their markers.

Usage: python tools/readme_tables.py FOLDER, where FOLDER/tables/<study>/<task>.md are the tables.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(readme: str, folder: Path) -> str:
    """README with every marked place replaced by its table."""
    return MARKED.sub(lambda m: f"{m[1]}\n{(folder / 'tables' / f'{m[2]}.md').read_text().strip()}\n\n{m[3]}", readme)


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[1] / "README.md"
    path.write_text(fill(path.read_text(), Path(sys.argv[1])))
