"""LIBSVM, UCI, MNIST, CIFAR-100 and scikit-learn's tables: small official-looking files, and the real ones."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from curvebench import cards, data
from curvebench.cards import DatasetCard
from curvebench.data import cifar, libsvm, mnist, uci
from curvebench.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def small(name: str, folder: Path, files: dict[str, bytes], splits: dict[str, int]) -> DatasetCard:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    card = cards.dataset(name)
    entries = tuple(
        dataclasses.replace(file, bytes=None, md5=None, sha256=hashlib.sha256(files[file.path]).hexdigest())
        for file in card.files
        if file.path in files
    )
    return dataclasses.replace(card, files=entries, splits=splits)


def test_libsvm_rows_become_dense_and_classes_become_signs(tmp_path: Path) -> None:
    files = {"a9a": b"-1 3:1 11:0.5 \n+1 123:2\n", "a9a.t": b"+1 122:1 \n"}
    found = libsvm.load_libsvm(tmp_path, card=small("a9a", tmp_path, files, {"train": 2, "test": 1}))
    assert found.features.shape == (2, 123)
    assert found.labels.tolist() == [-1, 1]
    assert (found.features[0, 2], found.features[0, 10], found.features[1, 122]) == (1, 0.5, 2)
    assert found.features.sum() == 3.5
    assert found.test_features is not None
    assert found.test_features.shape == (1, 123)
    mushrooms = small("mushrooms", tmp_path, {"mushrooms": b"1 1:1\n2 2:1\n2 3:1\n"}, {"train": 3})
    assert libsvm.load_libsvm(tmp_path, card=mushrooms).labels.tolist() == [-1, 1, 1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"1 1:x\n", "not in LIBSVM's format"),
        (b"1 1:1 2\n", "a word is neither label nor index:value"),
        (b"1 9:1\n", r"an index lies outside 1\.\.8"),
        (b"1 0:1\n", r"an index lies outside 1\.\.8"),
        (b"1 1:1 1:2\n", "an index is named twice in one row"),
        (b"1 1:1\n1 1:1\n", r"has \[2\] rows, expected \[1\]"),
    ],
)
def test_bad_libsvm(tmp_path: Path, content: bytes, why: str) -> None:
    card = small("abalone-scale", tmp_path, {"abalone_scale": content}, {"train": 1})
    with pytest.raises(DataError, match=why):
        libsvm.load_libsvm(tmp_path, card=card)


def uci_files(test: str = "1\n") -> dict[str, bytes]:
    files = {
        "data.txt": b" 1.0 2.0 3.0\n4 5 6\n7 8 9\n",
        "index_features.txt": b"0\n1\n",
        "index_target.txt": b"2\n",
        "n_splits.txt": b"1\n",
        "index_train_0.txt": b"0.0e+00\n2\n",
        "index_test_0.txt": test.encode(),
    }
    return {f"yacht/data/{name}": content for name, content in files.items()}


def test_uci_and_its_splits(tmp_path: Path) -> None:
    card = small("uci-yacht", tmp_path, uci_files(), {"train": 2, "test": 1})
    found = uci.load_uci(tmp_path, card=card)
    assert found.features.tolist() == [[1, 2], [4, 5], [7, 8]]
    assert found.targets.tolist() == [3, 6, 9]
    assert [rows.tolist() for rows in found.splits[0]] == [[0, 2], [1]]
    with pytest.raises(DataError, match="split 0 is no partition of the 3 rows"):
        uci.load_uci(tmp_path, card=small("uci-yacht", tmp_path, uci_files("2\n"), {"train": 2, "test": 1}))


def idx(array: np.ndarray, code: int = 8) -> bytes:
    head = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def mnist_files(labels: np.ndarray, code: int = 8) -> dict[str, bytes]:
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
    return {
        "train-images-idx3-ubyte.gz": idx(images, code),
        "train-labels-idx1-ubyte.gz": idx(labels),
        "t10k-images-idx3-ubyte.gz": idx(images[:1]),
        "t10k-labels-idx1-ubyte.gz": idx(labels[:1]),
    }


def test_mnist(tmp_path: Path) -> None:
    splits = {"train": 2, "validation": 1, "test": 1}
    found = mnist.load_mnist(tmp_path, card=small("mnist", tmp_path, mnist_files(np.array([3, 9, 0])), splits))
    assert found.train_images.shape == (3, 28, 28)
    assert found.train_images[0, 1, 2] == 30
    assert found.train_labels.tolist() == [3, 9, 0]
    assert found.test_labels.dtype == np.int64
    for bad, why in (
        (mnist_files(np.array([3, 10, 0])), "a label is 10"),
        (mnist_files(np.zeros(3), 13), "not an IDX file"),
        (mnist_files(np.zeros(2)), "not an IDX file of unsigned bytes of shape"),
    ):
        with pytest.raises(DataError, match=why):
            mnist.load_mnist(tmp_path, card=small("mnist", tmp_path, bad, splits))
    whole = mnist_files(np.zeros(3))
    broken = {**whole, "train-images-idx3-ubyte.gz": whole["train-images-idx3-ubyte.gz"][:40]}
    with pytest.raises(DataError, match="is not a whole gzip file"):
        mnist.load_mnist(tmp_path, card=small("mnist", tmp_path, broken, splits))


def test_cifar100_by_fine_labels_through_the_restricted_unpickler(tmp_path: Path, tiny) -> None:
    images = np.arange(4 * 3072).reshape(4, 3072).astype(np.uint8)
    content = {"data": images, "fine_labels": [0, 99, 5, 7], "coarse_labels": [1, 2, 3, 4], "filenames": ["a"] * 4}
    files = {f"cifar-100-python/{part}": tiny.python2_pickle(content) for part in ("train", "test")}
    splits = {"train": 3, "validation": 1, "test": 4}
    found = cifar.load_cifar100(tmp_path, card=small("cifar100", tmp_path, files, splits))
    np.testing.assert_array_equal(found.train_images.reshape(4, 3072), images)
    assert found.test_labels.tolist() == [0, 99, 5, 7]
    files["cifar-100-python/train"] = tiny.python2_pickle({**content, "fine_labels": [0, 100, 5, 7]})
    with pytest.raises(DataError, match=r"class 100 must lie in 0\.\.99"):
        cifar.load_cifar100(tmp_path, card=small("cifar100", tmp_path, files, splits))
    files["cifar-100-python/train"] = tiny.python2_pickle({**content, "data": np.array([None])})
    with pytest.raises(DataError, match="is not a batch of CIFAR-100"):
        cifar.load_cifar100(tmp_path, card=small("cifar100", tmp_path, files, splits))


def test_scikit_learn_s_tables_are_what_it_returns() -> None:
    sets = pytest.importorskip("sklearn.datasets")
    for name, how in (("wine", {}), ("diabetes", {"scaled": False})):
        features, targets = getattr(sets, f"load_{name}")(return_X_y=True, **how)
        found = data.load(name)
        np.testing.assert_array_equal(found.features, features)
        np.testing.assert_array_equal(found.targets, targets)


def test_files_of_the_uci_cards_are_the_usual_forty_four() -> None:
    names = [name for name in cards.names("datasets") if name.startswith("uci-")]
    assert len(names) == 8
    assert all(len(cards.dataset(name).files) == 44 and all(f.url for f in cards.dataset(name).files) for name in names)


@pytest.mark.shared
class TestReal:
    @pytest.fixture(autouse=True)
    def real(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not (SHARED / "libsvm").is_dir():
            pytest.skip("../shared/data/libsvm is not here")
        monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))

    def test_libsvm(self) -> None:
        found = data.load("mushrooms")
        assert found.features.shape == (8124, 112)
        assert np.unique(found.features).tolist() == [0, 1]
        assert (found.labels == -1).sum() == 4208, "edible ones"
        assert data.load("housing-scale").features.min() == -1

    @pytest.mark.parametrize("name", ["uci-yacht", "uci-energy"])
    def test_uci(self, name: str) -> None:
        found = data.load(name)
        assert len(found.splits) == 20
        assert np.isfinite(found.features).all()
