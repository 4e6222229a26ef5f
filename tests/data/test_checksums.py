"""Nothing is read before its checksum matched; every message names the file, the numbers and the command."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path

import pytest

from curvebench.data import checksums, roots
from curvebench.errors import DataError


@pytest.fixture
def here(tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data" / "cifar10"
    tiny.write(folder, tiny.python_files())
    monkeypatch.setenv("CURVEBENCH_DATA", str(tmp_path / "data"))
    return folder


@pytest.fixture
def card(tiny):
    return tiny.make_card(python=tiny.python_files(), binary=tiny.binary_files())


def test_locates_and_verifies(here: Path, card) -> None:
    assert roots.locate(card) == here
    assert roots.verify(card, here) == "python"
    assert roots.status(card) == ("present", f"{here}, checksums match")


def test_either_layout_will_do(here: Path, card, tiny) -> None:
    for path in (here / "cifar-10-batches-py").iterdir():
        path.unlink()
    tiny.write(here, tiny.binary_files())
    assert roots.locate(card) == here
    assert roots.verify(card, here) == "binary"


def test_absent(tmp_path: Path, card, own_cache: Path) -> None:
    with pytest.raises(DataError) as error:
        roots.locate(card)
    assert str(error.value) == (
        f"cifar10 is not on this machine (looked in {own_cache / 'curvebench' / 'data' / 'cifar10'}); "
        "run `curvebench data fetch cifar10`, or set CURVEBENCH_DATA=/path/to/folder in which "
        "cifar10/cifar-10-batches-py/data_batch_1 and its fellows lie"
    )
    word, sentence = roots.status(card)
    assert word == "absent"
    assert "curvebench data fetch cifar10" in sentence


def test_cache_is_searched_after_the_variable(here: Path, card, own_cache: Path, tiny) -> None:
    for path in (here / "cifar-10-batches-py").iterdir():
        path.unlink()
    cached = own_cache / "curvebench" / "data" / "cifar10"
    tiny.write(cached, tiny.python_files())
    assert roots.locate(card) == cached


def test_variable_that_is_no_folder(tmp_path: Path, card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURVEBENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"CURVEBENCH_DATA=.*nowhere is not a folder: create it, or unset"):
        roots.locate(card)
    word, sentence = roots.status(card)
    assert word == "absent"
    assert "is not a folder" in sentence


def test_folder_that_may_not_be_entered(here: Path, card, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_file(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")  # what a folder without x gives; root would not be stopped

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(DataError, match=r"data_batch_1 cannot be read \(Permission denied\)"):
        roots.locate(card)


def test_missing_file(here: Path, card) -> None:
    (here / "cifar-10-batches-py/data_batch_2").unlink()
    with pytest.raises(DataError, match=r"data_batch_2 is missing; run `curvebench data fetch cifar10`"):
        roots.locate(card)
    (here / "cifar-10-batches-py/test_batch").unlink()
    with pytest.raises(DataError, match=r"data_batch_2 and 1 more are missing; run"):
        roots.locate(card)
    assert roots.status(card)[0] == "corrupt"


def test_truncated_file(here: Path, card) -> None:
    path = here / "cifar-10-batches-py/data_batch_2"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError) as error:
        roots.verify(card, roots.locate(card))
    sentence = f"cifar10: {path} has {size - 1000:,} bytes, expected {size:,} (truncated); run `curvebench data fetch"
    assert str(error.value).startswith(sentence)
    path.write_bytes(b"\0" * (size + 1))
    with pytest.raises(DataError, match=r"\(too long\)"):
        roots.verify(card, here)


def test_wrong_checksum(here: Path, card) -> None:
    path = here / "cifar-10-batches-py/test_batch"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    want = next(file.sha256 for file in card.files if file.path.endswith("py/test_batch"))
    found = checksums.digest(path, "sha256")
    with pytest.raises(DataError) as error:
        roots.verify(card, here)
    sentence = f"cifar10: {path} has sha256 {found}, expected {want}: it is not the official file; run `curvebench"
    assert str(error.value).startswith(sentence)
    assert roots.status(card)[0] == "corrupt"


def test_md5_where_only_that_is_official(here: Path, tiny) -> None:
    card = tiny.make_card(python=tiny.python_files())
    md5 = [hashlib.md5((here / f.path).read_bytes(), usedforsecurity=False).hexdigest() for f in card.files]
    files = tuple(dataclasses.replace(f, sha256=None, md5=m) for f, m in zip(card.files, md5, strict=True))
    card = dataclasses.replace(card, files=files)
    assert roots.verify(card, here) == "python"
    bad = dataclasses.replace(card, files=(dataclasses.replace(files[0], md5="0" * 32), *files[1:]))
    with pytest.raises(DataError, match=r"has md5 [0-9a-f]{32}, expected 0{32}"):
        roots.verify(bad, here)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh files count as settled: a test cannot make a file's ctime old."""
    monkeypatch.setattr(checksums, "SETTLED", 0)


def _check(card, folder: Path, **options: bool) -> int:
    return checksums.check_files("cifar10", folder, roots.layouts(card)["python"], "mend it", **options)


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_hashed_once(here: Path, card) -> None:
    assert _check(card, here) == 3
    assert _check(card, here) == 0
    assert _check(card, here, stamps=False) == 3


@pytest.mark.usefixtures("settled")
def test_corruption_under_the_same_size_and_mtime_is_found(here: Path, card) -> None:
    path = here / "cifar-10-batches-py/data_batch_1"
    _check(card, here)
    before = path.stat()
    time.sleep(0.05)  # more than a tick of the file system's clock
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` or a malicious hand would
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(DataError, match="not the official file"):
        _check(card, here)


@pytest.mark.usefixtures("settled")
def test_a_new_card_asks_for_a_new_hash(here: Path, card, tiny) -> None:
    _check(card, here)
    other = dict(tiny.python_files())
    name = "cifar-10-batches-py/data_batch_1"
    other[name] = other[name][:-2] + b"X."
    with pytest.raises(DataError, match="not the official file"):
        _check(tiny.make_card(python=other), here)


def test_a_file_just_written_gets_no_stamp(here: Path, card) -> None:
    assert _check(card, here) == 3
    assert _check(card, here) == 3


@pytest.mark.usefixtures("settled")
def test_damaged_or_unwritable_stamps_cost_a_hash_and_nothing_else(
    here: Path, card, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check(card, here)
    (stamp,) = (own_cache / "curvebench/verified").iterdir()
    for damage in ("", "{", "[1]", '{"cifar-10-batches-py/data_batch_1": 3}'):
        stamp.write_text(damage)
        assert _check(card, here) == 3
    monkeypatch.setattr(checksums, "cache", lambda: here / "cifar-10-batches-py/data_batch_1")  # a file: no folder
    assert _check(card, here) == 3


def test_folder_in_place_of_a_file_is_missing(here: Path, card) -> None:
    path = here / "cifar-10-batches-py/data_batch_1"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"data_batch_1 is missing"):
        roots.verify(card, here)
