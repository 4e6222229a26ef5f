"""GLUE, WikiText-2 and the vocabulary: parsing rules on small official-looking files, the refusal, the real files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from curvebench import cards, data
from curvebench.cards import DatasetCard
from curvebench.cli.data import data as verb
from curvebench.data import glue, wikitext, wordpiece
from curvebench.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def small(name: str, folder: Path, files: dict[str, bytes], splits: dict[str, int], **more: Any) -> DatasetCard:
    """The shipped card with the checksums of these files; the files are written."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    card = cards.dataset(name)
    entries = tuple(
        dataclasses.replace(file, bytes=None, md5=None, sha256=hashlib.sha256(files[file.path]).hexdigest())
        for file in card.files
        if file.path in files
    )
    return dataclasses.replace(card, files=entries, splits=splits, **more)


def rows(*cells: tuple[str, ...], end: str = "\n") -> bytes:
    return "".join("\t".join(row) + end for row in cells).encode()


def test_cola_has_no_header_and_four_columns(tmp_path: Path) -> None:
    files = {
        "CoLA/train.tsv": rows(("gj04", "1", "", 'He said "no\x85thing'), ("gj04", "0", "*", "Bad bad.")),
        "CoLA/dev.tsv": rows(("x", "1", "", "Fine.")),
    }
    found = glue.load_glue(tmp_path, card=small("cola", tmp_path, files, {"train": 2, "validation": 1}))
    assert found.train.first == ['He said "no\x85thing', "Bad bad."], "nothing quotes, and only a line feed ends a line"
    assert found.train.second is None
    assert found.train.labels.tolist() == [1, 0]
    assert found.classes == ("0", "1")


def test_sst2_sentences_lose_the_space_at_their_end(tmp_path: Path) -> None:
    part = rows(("sentence", "label"), ("hide new secretions ", "0"))
    files = {"SST-2/train.tsv": part, "SST-2/dev.tsv": part}
    found = glue.load_glue(tmp_path, card=small("sst2", tmp_path, files, {"train": 1, "validation": 1}))
    assert found.validation.first == ["hide new secretions"]


def test_qqp_skips_rows_with_too_few_columns(tmp_path: Path) -> None:
    head = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    train = rows(head, ("1", "2", "3", "What?", "Why?", "0"), ("4", "5", "6"), ("7", "8", "9", "A?", "A!", "1"))
    files = {"QQP/train.tsv": train, "QQP/dev.tsv": rows(head, ("1", "2", "3", "a", "b", "1"), end="\r\n")}
    found = glue.load_glue(tmp_path, card=small("qqp", tmp_path, files, {"train": 2, "validation": 1}))
    assert found.train.second == ["Why?", "A!"]
    assert found.train.labels.tolist() == [0, 1]
    assert found.validation.labels.tolist() == [1]


def test_mnli_has_two_validation_parts_of_more_columns(tmp_path: Path) -> None:
    train = rows(("index",) * 12, (*["0"] * 8, "P", "H", "neutral", "entailment"))
    dev = rows(("index",) * 16, (*["0"] * 8, "P", "H", *["neutral"] * 5, "contradiction"))
    files = {"MNLI/train.tsv": train, "MNLI/dev_matched.tsv": dev, "MNLI/dev_mismatched.tsv": dev}
    found = glue.load_glue(tmp_path, card=small("mnli", tmp_path, files, {"train": 1, "validation": 1}))
    assert found.train.labels.tolist() == [0]
    assert found.mismatched is not None
    assert found.mismatched.labels.tolist() == found.validation.labels.tolist() == [2]


def test_mrpc_is_cut_by_its_identifiers_and_loses_its_mark(tmp_path: Path) -> None:
    head = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    text = b"\xef\xbb\xbf" + rows(head, ("1", "10", "11", "a", "b"), ("0", "12", "13", "c", "d"))
    files = {
        "MRPC/msr_paraphrase_train.txt": text,
        "MRPC/msr_paraphrase_test.txt": b"\xef\xbb\xbf" + rows(head, ("1", "1", "2", "e", "f")),
        "MRPC/dev_ids.tsv": rows(("12", "13")),
    }
    found = glue.load_glue(tmp_path, card=small("mrpc", tmp_path, files, {"train": 1, "validation": 1, "test": 1}))
    assert (found.train.first, found.validation.first) == (["a"], ["c"])
    assert found.test is not None
    assert found.test.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (rows(("index", "a", "b", "label"), ("0", "x", "y", "maybe")), "label 'maybe' must be entailment, not_entail"),
        (rows(("index", "a", "b", "label")), "has 0 train rows, expected 1"),
        (b"index\ta\tb\tlabel\n0\tx\xff\ty\tentailment\n", r"not UTF-8 \(invalid start byte at byte 19\)"),
    ],
)
def test_what_is_not_the_task_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    good = rows(("index", "a", "b", "label"), ("0", "x", "y", "entailment"))
    files = {"RTE/train.tsv": content, "RTE/dev.tsv": good}
    card = small("rte", tmp_path, files, {"train": 1, "validation": 1})
    with pytest.raises(DataError, match=why) as error:
        glue.load_glue(tmp_path, card=card)
    assert "curvebench data fetch rte" in str(error.value)


def archive_of(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(f"wikitext-2/{name}", content)
    return stream.getvalue()


def test_wikitext_from_its_archive_and_without_its_training_part(tmp_path: Path) -> None:
    parts = {"wiki.train.tokens": b" \n = A = \n", "wiki.valid.tokens": b" b \n", "wiki.test.tokens": b" c \n"}
    splits = {"train": 2, "validation": 1, "test": 1}
    packed = {"wikitext-2-v1.zip": archive_of(parts)}
    whole = wikitext.load_wikitext2(tmp_path / "a", card=small("wikitext-2", tmp_path / "a", packed, splits))
    assert whole == (" \n = A = \n", " b \n", " c \n", True)
    loose = {f"wikitext-2/{name}": content for name, content in parts.items() if "train" not in name}
    part = wikitext.load_wikitext2(tmp_path / "b", card=small("wikitext-2", tmp_path / "b", loose, splits))
    assert part == (" b \n", " c \n", " c \n", False)
    broken = {"wikitext-2-v1.zip": archive_of({"wiki.train.tokens": b""})}
    with pytest.raises(DataError, match="is not WikiText-2's archive"):
        wikitext.load_wikitext2(tmp_path / "c", card=small("wikitext-2", tmp_path / "c", broken, splits))


def test_a_vocabulary_with_moved_special_tokens_is_refused(tmp_path: Path) -> None:
    files = {"bert-base-uncased/vocab.txt": b"[PAD]\n[UNK]\n[MASK]\n"}
    card = small("bert-vocabulary", tmp_path, files, {"train": 3})
    with pytest.raises(DataError, match=r"misplaced \['\[UNK\]', '\[CLS\]'"):
        wordpiece.load_vocabulary(tmp_path, card=card)


@pytest.mark.shared
class TestReal:
    """The official files, where a data root with them stands beside the checkout."""

    @pytest.fixture(autouse=True)
    def real(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not (SHARED / "glue").is_dir():
            pytest.skip("../shared/data/glue is not here")
        monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))

    def test_label_counts(self) -> None:
        for name, train, validation in (("rte", [1249, 1241], [146, 131]), ("wnli", [323, 312], [40, 31])):
            found = data.load(name)
            assert np.bincount(found.train.labels).tolist() == train
            assert np.bincount(found.validation.labels).tolist() == validation
        scores = data.load("stsb").train.labels
        assert (scores.min(), scores.max(), len(scores)) == (0.0, 5.0, 5749)
        assert data.load("sst2").validation.first[0] == "it 's a charming and often affecting journey ."

    def test_the_cut_of_mrpc_is_the_benchmark_s(self) -> None:
        found = data.load("mrpc")
        for part, name in ((found.train, "train"), (found.validation, "dev")):
            cut = glue.read_rows(SHARED / f"glue/MRPC/{name}.tsv", header=True, mend="")
            assert part.first == [row[3].strip() for row in cut]
            assert part.labels.tolist() == [int(row[0]) for row in cut]

    def test_the_altered_qnli_file_is_refused_with_the_command_that_mends_it(self) -> None:
        done = CliRunner().invoke(verb, ["verify", "qnli"])
        assert isinstance(done.exception, DataError)
        message = str(done.exception)
        assert (
            "QNLI/dev.tsv has md5 3f9bee4d3ed4554cea548df75bd94ec7, expected 1e81e211959605f144ba6c0ad7dc948b"
            in message
        )
        assert "it is not the official file; run `curvebench data fetch qnli`" in message

    def test_wikitext_without_its_training_part_says_so(self) -> None:
        found = data.load("wikitext-2")
        assert not found.whole
        assert len(found.train.split()) + found.train.count("\n") == 217646

    def test_vocabulary(self) -> None:
        assert data.load("bert-vocabulary").tokens[-1] == "##～"
