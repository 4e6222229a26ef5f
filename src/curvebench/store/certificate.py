"""The last certificate: ``<results>/certificate.json``, what ``curvebench certify`` measured, replaced as a whole.

A report prints it with its age, and says whether the sources have changed since.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import curvebench
from curvebench.errors import StoreError
from curvebench.store.files import explained, overwrite
from curvebench.types import Json

SCHEMA = 1
NAME = "certificate.json"
MISSING = "not certified: run `curvebench certify`"
KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "started": (str,),
    "seconds": (int, float),
    "code": (str,),
    "git": (dict, type(None)),
    "versions": (dict,),
    "machine": (dict,),
    "findings": (list,),
}
FINDING: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "sentence": (str,),
    "value": (int, float, type(None)),
    "bound": (str,),
    "outcome": (str,),
    "seen": (str,),
    "seconds": (int, float),
}
OUTCOMES = ("pass", "fail", "not measured")


@dataclass(frozen=True)
class Certificate:
    """What a report shows of the certificate.

    Args:
        found: whether there is one; without it all else is empty and :attr:`line` is :data:`MISSING`.
        started: when it was measured, ISO 8601 in UTC.
        age_days: since then, None without one.
        code: hash of the sources that it was measured with, 64 hex digits.
        same_code: whether these are the sources of now; None without one.
        commit: of the checkout, with ``+`` behind it if that had changes.
        machine: in one line.
        findings: every statement with its outcome, in order.
    """

    found: bool
    started: str = ""
    age_days: float | None = None
    code: str = ""
    same_code: bool | None = None
    commit: str = ""
    machine: str = ""
    seconds: float = 0.0
    findings: tuple[Json, ...] = ()

    def count(self, outcome: str) -> int:
        """How many statements ended so."""
        return sum(finding["outcome"] == outcome for finding in self.findings)

    @property
    def line(self) -> str:
        """One sentence for the head of a report."""
        if not self.found or self.age_days is None:
            return MISSING
        broken = [finding["name"] for finding in self.findings if finding["outcome"] == "fail"]
        held = f"{self.count('pass')} of {len(self.findings)} statements hold"
        wrong = f", {len(broken)} do not ({', '.join(broken)})" if broken else ""
        left = f", {n} not measured" if (n := self.count("not measured")) else ""
        age = "today" if self.age_days < 1 else f"{self.age_days:.0f} days ago"
        code = "these sources" if self.same_code else "other sources than these: run `curvebench certify` again"
        where = f", commit {self.commit.rstrip('+')[:9]}{'+' * self.commit.endswith('+')}" if self.commit else ""
        return (
            f"certificate: {held}{wrong}{left}; measured {self.started[:10]} ({age}), code {self.code[:8]}{where}, "
            f"{code}; {self.machine}"
        )

    def to_json(self) -> Json:
        """The certificate in plain JSON types, its line among them."""
        return {
            "found": self.found, "line": self.line, "started": self.started, "age_days": self.age_days,
            "code": self.code, "same_code": self.same_code, "commit": self.commit, "machine": self.machine,
            "seconds": self.seconds, "passed": self.count("pass"), "failed": self.count("fail"),
            "not_measured": self.count("not measured"), "findings": list(self.findings),
        }  # fmt: skip


def code_hash() -> str:
    """64 hex digits of all of curvebench's own sources: a certificate speaks for the whole of them."""
    package, total = Path(curvebench.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(path.relative_to(package).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def write_certificate(root: str | os.PathLike[str], content: Json) -> Path:
    """Write or replace the certificate below a results folder.

    Raises:
        StoreError: ``content`` is not what this schema says, or the folder cannot be written.
    """
    path = Path(root) / NAME
    content = {"schema": SCHEMA, **content}
    check(path, content)
    head = [f"{json.dumps(key)}: {json.dumps(content[key], allow_nan=False)}" for key in KEYS if key != "findings"]
    rows = ",\n".join(json.dumps(finding, allow_nan=False) for finding in content["findings"])
    with explained(path, "nothing was changed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, ("{\n" + ",\n".join(head) + ',\n"findings": [\n' + rows + "\n]\n}\n").encode())
    return path


def certificate(root: str | os.PathLike[str], now: datetime | None = None) -> Certificate:
    """The certificate below a results folder, as data; ``found`` is False where there is none.

    Args:
        root: the results folder.
        now: what its age is measured at; None: this moment.

    Raises:
        StoreError: the file is there but is not a certificate, or is of a newer schema.
    """
    path = Path(root) / NAME
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Certificate(False)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not valid JSON ({error}): make it again with `curvebench certify`") from error
    check(path, data)
    started = datetime.fromisoformat(data["started"])
    age = ((now or datetime.now(UTC)) - started).total_seconds() / 86400
    git = data["git"] or {}
    commit = git.get("commit", "") + ("+" if git.get("dirty") else "")
    return Certificate(True, data["started"], max(0.0, age), data["code"], data["code"] == code_hash(), commit,
                       str(data["machine"].get("line", "")), data["seconds"], tuple(data["findings"]))  # fmt: skip


def check(path: Path, data: object) -> None:
    """Raise a :class:`StoreError` with file, key and what is allowed unless ``data`` is a certificate."""
    if not isinstance(data, dict):
        raise StoreError(f"{path}: must hold a JSON object")
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise StoreError(f"{path}: written by a newer curvebench (schema {schema}, this one reads up to {SCHEMA})")
    _keys(path, data, KEYS, "")
    try:
        aware = datetime.fromisoformat(data["started"]).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise StoreError(f"{path}: started = {data['started']!r}: must be a time with its zone, ISO 8601")
    for place, finding in enumerate(data["findings"]):
        if not isinstance(finding, dict):
            raise StoreError(f"{path}: findings[{place}] must be an object")
        _keys(path, finding, FINDING, f"findings[{place}].")
        if finding["outcome"] not in OUTCOMES:
            raise StoreError(
                f"{path}: findings[{place}].outcome = {finding['outcome']!r}: must be one of {', '.join(OUTCOMES)}"
            )
        if finding["value"] is not None and not math.isfinite(finding["value"]):
            raise StoreError(f"{path}: findings[{place}].value = {finding['value']!r}: must be finite or null")


def _keys(path: Path, data: Json, wanted: dict[str, tuple[type, ...]], where: str) -> None:
    for key, types in wanted.items():
        if key not in data:
            raise StoreError(f"{path}: {where}{key}: is missing")
        if not isinstance(data[key], types) or isinstance(data[key], bool):
            raise StoreError(f"{path}: {where}{key} = {data[key]!r}: must be {' or '.join(t.__name__ for t in types)}")
