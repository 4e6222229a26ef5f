"""Compare what two machines printed for one study: ``image_compare.py HOST.json IMAGE.json``, each of ``bench --json``.

Times and memory belong to the machine and are left out; everything else of the tables must be equal to the last bit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MACHINE = ("seconds", "step_ms", "memory_mib", "within_noise_of_best")
"""Columns (and their intervals) that are measured on the machine; the last compares times."""


def rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of all tables by ``task / method / framework``, without what is measured on the machine."""
    return {
        f"{table['task']} / {row['method']} / {row['framework']}": {
            key: value for key, value in row.items() if not key.startswith(MACHINE)
        }
        for table in report["tables"]
        for row in table["rows"]
    }


def differences(host: dict[str, dict[str, Any]], image: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A sentence for every cell that differs and every row that only one side has."""
    for name in sorted(host.keys() | image.keys()):
        if name not in host or name not in image:
            yield f"{name}: only {'the image' if name in image else 'the host'} has this row"
            continue
        for key in sorted(host[name].keys() | image[name].keys()):
            left, right = host[name].get(key), image[name].get(key)
            if left != right:
                yield f"{name}: {key} is {left!r} on the host and {right!r} in the image"


def main(paths: list[str]) -> int:
    """Print what differs; 0 if nothing does, 1 if something, 2 if there is nothing to compare."""
    if len(paths) != 2:
        print("usage: image_compare.py HOST.json IMAGE.json", file=sys.stderr)
        return 2
    host, image = (rows(json.loads(Path(path).read_text())) for path in paths)
    if not host:
        print("image_compare: the host's tables have no rows", file=sys.stderr)
        return 2
    found = list(differences(host, image))
    for line in found:
        print(line)
    cells = sum(len(row) for row in host.values())
    print(f"{len(host)} rows, {cells} cells, times and memory aside: {len(found)} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
