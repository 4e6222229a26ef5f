"""JSON Schemas of the cards, for editors: ``python -m curvebench.cards.schema`` writes them to ``docs/schemas/``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from curvebench.cards.loading import schema
from curvebench.cards.places import SINGULAR, root


def texts() -> dict[str, str]:
    """File name -> content of every schema."""
    out = {}
    for kind, singular in SINGULAR.items():
        content = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema(kind),
            "title": f"curvebench {singular} card",
        }
        out[f"{singular}.schema.json"] = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return out


def write(folder: Path) -> list[Path]:
    """Write every schema into ``folder``, which is made if need be, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "docs" / "schemas"
    for path in write(target):
        print(path)
