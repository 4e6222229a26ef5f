"""WordPiece numbers, their cache, and pre-trained weights: what is refused, what is made again, what is understood."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from curvebench.data import tokens, weights
from curvebench.data.checksums import cache
from curvebench.errors import DataError
from curvebench.tasks.bert_model import Bert, initial

pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'curvebench[bert]'")
SHAPE = Bert(1, 8, 2, 12, vocabulary=6, positions=10)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    return tmp_path / "vocab.txt"


def test_one_sentence_and_two(vocabulary: Path) -> None:
    one = tokens.encode(vocabulary, ["The CATS sat!", "dog"], None, 16)
    assert one.tolist() == [[[2, 5, 6, 7, 8, 9, 3], [0] * 7], [[2, 1, 3, 0, 0, 0, 0], [0] * 7]]
    two = tokens.encode(vocabulary, ["the cat"], ["sat"], 16)
    assert two.tolist() == [[[2, 5, 6, 3, 8, 3], [0, 0, 0, 0, 1, 1]]]


def test_the_longer_of_a_pair_is_cut(vocabulary: Path) -> None:
    cut = tokens.encode(vocabulary, ["the " * 20], ["sat"], 8)
    assert cut.tolist() == [[[2, 5, 5, 5, 5, 3, 8, 3], [0, 0, 0, 0, 0, 0, 1, 1]]]
    with pytest.raises(ValueError, match=r"length = 7: must lie in \[8, 512\]"):
        tokens.encode(vocabulary, ["the"], None, 7)


def test_the_cache_is_asked_by_content_and_a_damaged_file_is_made_again() -> None:
    made = []

    def make() -> tuple[np.ndarray, ...]:
        made.append(1)
        return np.arange(6, dtype=np.uint16).reshape(2, 3), np.array([0.5, 1.5])

    key = {"test": "cache"}
    before = set((cache() / "tokens").glob("*"))
    for _ in range(3):
        one, other = tokens.cached(key, make)
        assert one.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert one.dtype == np.uint16
        assert other.tolist() == [0.5, 1.5]
    assert len(made) == 1
    (path,) = set((cache() / "tokens").glob("*")) - before
    whole = path.read_bytes()
    for spoilt in (whole[:-40], whole[:20] + b"x" + whole[21:], b"x"):
        path.write_bytes(spoilt)
        with pytest.warns(UserWarning, match="is damaged and is made again"):
            assert tokens.cached(key, make)[0].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert path.read_bytes() == whole
    tokens.cached({"test": "another"}, make)
    assert len(made) == 5
    assert not list((cache() / "tokens").glob(".tokens-*"))


def save(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / "model.safetensors")


def test_weights_replace_the_encoder_and_leave_a_new_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = initial(np.random.default_rng(0), SHAPE, 2)
    theirs = {n: p.astype(np.float32) for n, p in initial(np.random.default_rng(1), SHAPE, 2).items()}
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): p
           for n, p in theirs.items() if not n.startswith("classifier")}  # fmt: skip
    for names in (old, {n.removeprefix("bert."): p for n, p in old.items()}):
        save(tmp_path / "bert-tiny", names)
        monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
        found = weights.find("bert-tiny")
        assert found.path is not None
        mixed, count = weights.overlay(own, found.path)
        assert count == len(own) - 2
        assert list(mixed) == list(own)
        for name, value in mixed.items():
            source = own if name.startswith("classifier") else theirs
            assert np.array_equal(value, source[name].astype(np.float64)), name
    assert len(weights.identity("bert-tiny")) == 64
    assert weights.identity("bert-mini") == ""


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    own = initial(np.random.default_rng(0), SHAPE, 2)
    theirs = {n: p.astype(np.float32) for n, p in own.items()}
    save(tmp_path, theirs | {"bert.pooler.dense.bias": np.zeros(9, np.float32)})
    with pytest.raises(DataError, match=r"bert.pooler.dense.bias has shape \(9,\), expected \(8,\): another model"):
        weights.overlay(own, tmp_path / "model.safetensors")
    del theirs["bert.embeddings.LayerNorm.bias"]
    save(tmp_path, theirs)
    with pytest.raises(DataError, match=r"has no bert.embeddings.LayerNorm.bias: it is not a BERT encoder"):
        weights.overlay(own, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(DataError, match="is not a safetensors file"):
        weights.overlay(own, tmp_path / "model.safetensors")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bert-tiny").mkdir()
    (tmp_path / "bert-tiny" / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    with pytest.raises(
        DataError, match=r"pytorch_model.bin is a pickle, which can run any code while it is read, and is"
    ):
        weights.find("bert-tiny")
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(DataError, match="is neither a folder nor the word hub"):
        weights.find("bert-tiny")


def test_a_hub_that_cannot_be_reached_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def refuse(repository: str, file: str) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setenv(weights.VARIABLE, "hub")
    found = weights.find("bert-tiny")
    assert found.path is None
    assert "the hub gave no google/bert_uncased_L-2_H-128_A-2/model.safetensors (no route to host)" in found.why
    monkeypatch.setattr(hub, "hf_hub_download", lambda repository, file: str(tmp_path / file))
    assert weights.find("bert-tiny").path == tmp_path / "model.safetensors"
