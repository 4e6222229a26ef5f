"""The embedded tables: content, checksums, splits that never move."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curvebench import cards, data
from curvebench.data import roots, scikit_learn, splits
from curvebench.errors import DataError, MissingPackageError

NAMES = ["digits", "breast-cancer"]
HAVE = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")


@HAVE
def test_digits() -> None:
    digits = data.load("digits")
    assert digits.images.shape == (1797, 64)
    assert digits.images.dtype == np.float64
    assert set(np.unique(digits.images)) == set(range(17))
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1257, 180, 360]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    for part in parts:
        share = np.bincount(digits.labels[part]) / np.bincount(digits.labels)
        np.testing.assert_allclose(share, len(part) / 1797, atol=0.01)


@HAVE
def test_digits_split_never_moves() -> None:
    digits = data.load("digits")
    content = b"".join(part.astype("<i8").tobytes() for part in (digits.train, digits.validation, digits.test))
    assert hashlib.sha256(content).hexdigest() == "fff2c81f234a37e9f5e77d1b4fd2b2dbf8104054d0f2d899c156a798101673fd"


@HAVE
def test_breast_cancer() -> None:
    table = data.load("breast-cancer")
    assert table.features.shape == (569, 30)
    assert table.features[0, :3].tolist() == [17.99, 10.38, 122.8]
    assert table.labels.dtype == np.float64
    assert np.sum(table.labels == -1) == 212
    assert np.sum(table.labels == 1) == 357
    assert table.labels[0] == -1


@HAVE
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_scikit_learn_s_own_loader(name: str) -> None:
    import sklearn.datasets

    features, classes = getattr(sklearn.datasets, f"load_{name.replace('-', '_')}")(return_X_y=True)
    found = data.load(name)
    np.testing.assert_array_equal(found[0], features)
    np.testing.assert_array_equal(found[1], classes if name == "digits" else 2.0 * classes - 1)


@HAVE
@pytest.mark.parametrize("name", NAMES)
def test_scikit_learn_is_asked_when_its_file_has_moved(name: str) -> None:
    card = cards.dataset(name)
    features, labels = scikit_learn.table(card, "moved.csv", header=0)
    file = {"digits": "digits.csv.gz", "breast-cancer": "breast_cancer.csv"}[name]
    direct, classes = scikit_learn.table(card, file, header=int(name != "digits"))
    np.testing.assert_array_equal(features, direct)
    np.testing.assert_array_equal(labels, classes)


@HAVE
def test_reading_does_not_import_scikit_learn() -> None:
    code = "import sys; from curvebench import data; data.load('digits'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@HAVE
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("entry", [0, 1], ids=["features", "labels"])
def test_another_content_is_refused(name: str, entry: int) -> None:
    card = cards.dataset(name)
    files = list(card.files)
    files[entry] = dataclasses.replace(files[entry], sha256="0" * 64)
    module, _, attribute = card.loader.partition(":")
    load = getattr(importlib.import_module(module), attribute)
    why = rf"{name}: {files[entry].path} read from .* expected .* 0{{64}}: it is not the official content"
    with pytest.raises(DataError, match=why):
        load(card=dataclasses.replace(card, files=tuple(files)))


@pytest.mark.parametrize(("content", "why"), [(b"1,2\n1,x\n", "cannot be read"), (b"1,2\n3,4\n", "not the official")])
def test_damaged_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, why: str) -> None:
    folder = tmp_path / "sklearn/datasets/data"
    folder.mkdir(parents=True)
    (tmp_path / "sklearn/__init__.py").touch()
    (folder / "digits.csv.gz").write_bytes(gzip.compress(content))
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=rf"{why}.*; run `pip install --force-reinstall scikit-learn`"):
        data.load("digits")


@pytest.mark.parametrize("name", NAMES)
def test_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    why = rf"the data set {name} needs the package 'scikit-learn': pip install 'curvebench\[data\]'"
    with pytest.raises(MissingPackageError, match=why):
        data.load(name)
    assert roots.status(cards.dataset(name)) == ("absent", "comes with scikit-learn: pip install 'curvebench[data]'")


@HAVE
@pytest.mark.parametrize("name", NAMES)
def test_status_and_locate_of_an_embedded_set(name: str) -> None:
    card = cards.dataset(name)
    assert roots.status(card) == ("embedded", "comes with scikit-learn")
    with pytest.raises(DataError, match=f"{name} has no files of its own"):
        roots.locate(card)


def test_stratified_is_exact_and_even() -> None:
    labels = np.array([0] * 70 + [1] * 20 + [2] * 7 + [3] * 3)
    parts = splits.stratified(labels, (60, 25, 15), "test")
    assert [len(part) for part in parts] == [60, 25, 15]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
    for part in parts:
        ideal = np.bincount(labels) * len(part) / 100
        assert np.all(np.abs(np.bincount(labels[part], minlength=4) - ideal) <= 1)
    again = splits.stratified(labels, (60, 25, 15), "test")
    other = splits.stratified(labels, (60, 25, 15), "another key")
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not np.array_equal(parts[0], other[0])


def test_stratified_refuses_sizes_that_do_not_add_up() -> None:
    with pytest.raises(ValueError, match=r"split sizes \[1, 1\] must be at least 0 and add up to 3 rows"):
        splits.stratified(np.zeros(3, np.int64), (1, 1))
    with pytest.raises(ValueError, match="at least 0"):
        splits.stratified(np.zeros(3, np.int64), (4, -1))
