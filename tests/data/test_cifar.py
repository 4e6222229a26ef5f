"""CIFAR-10 from both layouts, from hostile files, and the real one where it is."""

from __future__ import annotations

import hashlib
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curvebench import cards, data
from curvebench.data import cifar
from curvebench.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
BATCH = "cifar-10-batches-py/data_batch_1"


def test_both_layouts_give_the_same_bits(tmp_path: Path, tiny) -> None:
    python, binary = tiny.python_files(), tiny.binary_files()
    tiny.write(tmp_path / "a", python)
    tiny.write(tmp_path / "b", binary)
    card = tiny.make_card(python=python, binary=binary)
    one, other = cifar.load_cifar10(tmp_path / "a", card=card), cifar.load_cifar10(tmp_path / "b", card=card)
    for left, right in zip(one, other, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    parts = [tiny.images_and_labels(n) for n in range(3)]
    np.testing.assert_array_equal(one.train_images.reshape(-1, 3072), np.concatenate([p[0] for p in parts[:2]]))
    np.testing.assert_array_equal(one.train_labels, parts[0][1] + parts[1][1])
    np.testing.assert_array_equal(one.test_labels, parts[2][1])
    assert one.train_images.shape == (40, 3, 32, 32)
    assert one.train_images.dtype == np.uint8
    assert one.train_labels.dtype == np.int64
    assert one.train_images.flags.writeable  # torch.from_numpy warns otherwise


def test_the_tests_own_files_are_in_python_2s_dialect(tiny) -> None:
    content = tiny.python_files()[BATCH]
    words = {op.name for op, _, _ in pickletools.genops(content)}
    assert {"PROTO", "SHORT_BINSTRING", "BINSTRING"} <= words
    assert not {"BINUNICODE", "STACK_GLOBAL", "SHORT_BINBYTES"} & words
    assert b"cnumpy.core.multiarray\n_reconstruct" in content


def test_nothing_is_read_before_the_checksum(tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tiny.python_files()
    card = tiny.make_card(python=files)
    files[BATCH] = files[BATCH][:-1] + b"X"
    tiny.write(tmp_path, files)

    def read(path: Path, mend: str) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(cifar, "_read_python", read)
    with pytest.raises(DataError, match="not the official file"):
        cifar.load_cifar10(tmp_path, card=card)


class Call:
    """Pickles to a call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def _load_with(folder: Path, tiny, content: bytes) -> cifar.Cifar:
    """Load with a first batch that the card vouches for: only the unpickler stands between it and us."""
    files = tiny.python_files() | {BATCH: content}
    tiny.write(folder, files)
    return cifar.load_cifar10(folder, card=tiny.make_card(python=files))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path: Path, tiny, protocol: int) -> None:
    trace = tmp_path / "trace"
    hostile = pickle.dumps({"data": Call(os.system, f"touch {trace}")}, protocol=protocol)
    pickle.loads(hostile)
    assert trace.exists(), "the pickle is really hostile"
    trace.unlink()
    with pytest.raises(DataError, match=r"data_batch_1 is not a batch of CIFAR-10 \(it asks for .*system.*not allowed"):
        _load_with(tmp_path, tiny, hostile)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (Call(eval, "1"), r"asks for (__builtin__|builtins)\.eval"),
        (Call(getattr, 1, "real"), r"asks for (__builtin__|builtins)\.getattr"),
        (Call(np.load, "x"), r"asks for numpy\.load"),
        (np.dtype("O"), "dtype b'O8', uint8 is all"),
        (np.dtype([("a", "u1")]), "dtype b'V1', uint8 is all"),
        (np.array([None]), "dtype b'O8'"),
        (np.array([1.5]), "dtype b'f8'"),
    ],
    ids=["eval", "getattr", "numpy.load", "object dtype", "record dtype", "object array", "float array"],
)
def test_nothing_but_byte_arrays_and_plain_containers(tmp_path: Path, tiny, hostile: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        _load_with(tmp_path, tiny, tiny.python2_pickle({"data": hostile, "labels": []}))


def test_a_dotted_name_below_an_allowed_one_is_refused(tmp_path: Path, tiny) -> None:
    stack = b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."
    with pytest.raises(DataError, match=r"asks for numpy\.ndarray\.__class__"):
        _load_with(tmp_path, tiny, stack)


@pytest.mark.parametrize("content", [b"\x80\x02}", b"garbage", b"\x80\x02]q\x00h\x05.", b"\x80\x02K\x01b."])
def test_damaged_pickle(tmp_path: Path, tiny, content: bytes) -> None:
    with pytest.raises(DataError, match=r"data_batch_1 is not a batch of CIFAR-10 \(.*\); run `curvebench data fetch"):
        _load_with(tmp_path, tiny, content)


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        ([], "b'data' must be a uint8 array of 3,072 columns"),
        ({"labels": []}, "b'data' must be"),
        ({"data": np.zeros((3, 3071), np.uint8), "labels": [1, 2, 3]}, "b'data' must be"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2]}, "b'labels' must be a list of 3 integers"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2, True]}, "b'labels' must be"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2, 10]}, r"class 10 must lie in 0\.\.9"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, -1, 2]}, r"class -1 must lie in 0\.\.9"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, 1, 2]}, r"\(23, 20\) training and test images, exp"),
    ],
)
def test_wrong_content(tmp_path: Path, tiny, batch: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        _load_with(tmp_path, tiny, tiny.python2_pickle(batch))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\1" * 3072, "has 3,072 bytes: not rows of 3,073"),
        (b"\x0a" + b"\0" * 3072, r"class 10 must lie in 0\.\.9"),
        (b"\x01" + b"\0" * 3072, r"\(21, 20\) training and test images"),
    ],
)
def test_wrong_binary_content(tmp_path: Path, tiny, content: bytes, why: str) -> None:
    files = tiny.binary_files() | {"cifar-10-batches-bin/data_batch_1.bin": content}
    tiny.write(tmp_path, files)
    with pytest.raises(DataError, match=why):
        cifar.load_cifar10(tmp_path, card=tiny.make_card(binary=files))


def test_the_card_names_both_layouts_with_official_checksums() -> None:
    card = cards.dataset("cifar10")
    by_layout = {name: [f for f in card.files if f.layout == name] for name in ("python", "binary")}
    assert len(by_layout["python"]) == 7
    assert [f.bytes for f in by_layout["binary"]] == [30_730_000] * 6
    md5 = {archive.layout: archive.md5 for archive in card.archives}
    assert md5 == {"python": "c58f30108f718f92721af3b95e74349a", "binary": "c32a1d4ab5d03f1284b67883e8d87530"}


@pytest.mark.shared
class TestReal:
    """The official files, where a data root with them stands beside the checkout."""

    @pytest.fixture(autouse=True)
    def real(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not (SHARED / "cifar10/cifar-10-batches-py/test_batch").is_file():
            pytest.skip("../shared/data/cifar10 is not here")
        monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))

    def test_statistics(self) -> None:
        found = data.load("cifar10")
        card = cards.dataset("cifar10")
        assert found.train_images.shape == (50000, 3, 32, 32)
        assert found.test_images.shape == (10000, 3, 32, 32)
        assert np.bincount(found.train_labels).tolist() == [5000] * 10
        assert np.bincount(found.test_labels).tolist() == [1000] * 10
        assert found.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
        assert card.normalisation is not None
        mean = found.train_images.mean(axis=(0, 2, 3)) / 255
        std = [found.train_images[:, channel].std() / 255 for channel in range(3)]
        np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=5e-5)
        np.testing.assert_allclose(card.normalisation.mean, mean, atol=5e-5)
        np.testing.assert_allclose(card.normalisation.std, std, atol=6e-5)

    def test_binary_layout_has_the_card_s_checksums(self) -> None:
        """Rows of class and image, made from the official Python batches, are the official binary files."""
        found = data.load("cifar10")
        card = cards.dataset("cifar10")
        images = np.concatenate([found.train_images, found.test_images]).reshape(-1, 3072)
        labels = np.concatenate([found.train_labels, found.test_labels])
        binary = [file for file in card.files if file.layout == "binary"]
        for start, file in zip(range(0, 60000, 10000), binary, strict=True):
            part = slice(start, start + 10000)
            rows = np.concatenate([labels[part, None].astype(np.uint8), images[part]], axis=1).tobytes()
            assert len(rows) == file.bytes
            assert hashlib.sha256(rows).hexdigest() == file.sha256
            assert hashlib.md5(rows, usedforsecurity=False).hexdigest() == file.md5
