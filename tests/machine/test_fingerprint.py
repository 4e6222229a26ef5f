"""The fingerprint is stable where timings are comparable and changes where they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curvebench import machine


def test_the_fingerprint_is_plain_json_and_names_the_machine() -> None:
    found = machine.fingerprint(["NVIDIA H100"])
    assert json.loads(json.dumps(found)) == found
    assert found["gpus"] == ["NVIDIA H100"]
    assert found["cores"]["available"] == machine.available_cores() <= (os.cpu_count() or 1)
    assert found["cpu"] not in ("", "unknown")
    assert found["memory_gib"] >= 1
    sentence = machine.describe(found)
    assert found["cpu"] in sentence
    assert "NVIDIA H100" in sentence
    assert f"{found['memory_gib']} GiB" in sentence


def test_another_process_has_the_same_key() -> None:
    code = "from curvebench import machine as m; print(m.key(m.fingerprint()))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == machine.key(machine.fingerprint())
    assert len(other) == 64
    assert int(other, 16) >= 0


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"kernel": "7.0.0"}, True),
        ({"memory_gib": 15}, True),  # what a kernel leaves over differs; the class does not
        ({"cpu": "Other CPU"}, False),
        ({"isa": []}, False),
        ({"cores": {"physical": 64, "logical": 128, "available": 1}}, False),
        ({"memory_class_gib": 1.0}, False),
        ({"gpus": ["NVIDIA H100"]}, False),
        ({"python": "4.0"}, False),
        ({"os": "Plan 9"}, False),
        ({"arch": "m68k"}, False),
    ],
)
def test_what_enters_the_key(change: dict[str, object], same: bool) -> None:
    mine = machine.fingerprint()
    assert (machine.key(mine | change) == machine.key(mine)) is same


def test_order_of_gpus_does_not_matter() -> None:
    assert machine.key(machine.fingerprint(["a", "b"])) == machine.key(machine.fingerprint(["b", "a"]))


@pytest.mark.parametrize(
    ("seen", "bought"), [(15.4, 16), (15.9, 16), (7.6, 8), (23.4, 24), (62.7, 64), (125.8, 128), (251.5, 256), (3.8, 4)]
)
def test_memory_class_is_what_was_bought(seen: float, bought: float) -> None:
    assert machine.memory_class(seen) == bought


def test_affinity_counts_as_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3}, raising=False)
    monkeypatch.setattr(machine, "quota", lambda: float("inf"))
    assert machine.affinity() == (3, 5)
    assert machine.available_cores() == 2
    monkeypatch.setattr(machine, "quota", lambda: 0.5)
    assert machine.available_cores() == 1


def test_container_quotas(tmp_path: Path) -> None:
    assert machine.quota(tmp_path) == float("inf")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.quota(tmp_path) == float("inf")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert machine.quota(tmp_path) == 2.0
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert machine.quota(tmp_path) == float("inf")


def test_processors(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: AMD  EPYC 7763\nflags\t: fpu avx2 avx512f\n\nmodel name : second\n")
    assert machine.processor(info) == ("AMD EPYC 7763", ["avx2", "avx512f"])
    info.write_text("processor : 0\nFeatures : fp asimd sve\nCPU implementer : 0x41\nCPU part : 0xd40\n")
    assert machine.processor(info) == ("ARM implementer 0x41 part 0xd40", ["asimd", "sve"])
    model, isa = machine.processor(tmp_path / "missing")
    assert model
    assert isa == []


def test_load() -> None:
    found = machine.load()
    assert found is None or found >= 0.0


def test_load_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert machine.load() is None


def test_describe_of_a_foreign_fingerprint() -> None:
    assert machine.describe({}) == "unknown processor"
    assert machine.describe({"cpu": "X", "cores": {"available": 1}}) == "X, 1 core"
