"""Tasks on files that are not shipped: checked on small files in the official layout, refused where there are none."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curvebench import cards, tasks
from curvebench.cards import DatasetCard, TaskCard
from curvebench.data.libsvm import FEATURES, SIGNED
from curvebench.errors import DataError
from curvebench.procedures.certify import derivatives
from curvebench.spec import Query
from curvebench.tasks import autoencoder, logistic, ridge, tables
from curvebench.tasks.problem import Problem

ROWS = 30
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
DATASET = cards.dataset


def _downloaded(name: str) -> bool:
    card = cards.task(name)
    return card.family == "regression" and card.dataset is not None and DATASET(card.dataset).source == "download"


NAMES = [name for name in cards.names("tasks") if _downloaded(name)]


def libsvm_file(name: str) -> bytes:
    rng = np.random.default_rng(len(name))
    lines = []
    for row in range(ROWS):
        label = f"{2 * (row % 2) - 1:+d}" if name in SIGNED else f"{rng.normal(10, 3):.3f}"
        columns = np.sort(rng.choice(FEATURES[name], 5, replace=False)) + 1
        lines.append(" ".join([label, *(f"{column}:{rng.uniform(0.5, 1):.3f}" for column in columns)]))
    return "\n".join(lines).encode() + b"\n"


def uci_file(name: str, columns: int) -> bytes:
    rng = np.random.default_rng(columns)
    rows = "\n".join(map(str, np.arange(ROWS)))
    return {
        "data.txt": "\n".join(" ".join(f"{x:.4f}" for x in row) for row in rng.normal(5, 2, (ROWS, columns + 1))),
        "index_features.txt": "\n".join(map(str, range(columns))),
        "index_target.txt": str(columns),
        "n_splits.txt": "1",
        "index_train_0.txt": rows[: rows.index("\n27")],
        "index_test_0.txt": rows[rows.index("\n27") + 1 :],
    }[name].encode()


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def mnist_file(name: str) -> bytes:
    count = ROWS if name.startswith("train") else 6
    rng = np.random.default_rng(count)
    return idx(rng.integers(0, 256, (count, 28, 28))) if "images" in name else idx(np.arange(count) % 10)


def content(card: DatasetCard, path: str) -> tuple[bytes, dict[str, int]]:
    """A small file in the place of the official one, and the sizes of the splits that follow from all of them."""
    if card.folder == "libsvm":
        return libsvm_file(card.name), {"train": ROWS, "test": ROWS}
    if card.folder == "uci":
        return uci_file(Path(path).name, 7), {"train": 27, "test": 3}
    return mnist_file(path), {"train": ROWS - 5, "validation": 5, "test": 6}


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, DatasetCard]]:
    """Every data set of these tasks in miniature: the folder, and cards that have its checksums."""
    root = tmp_path_factory.mktemp("data")
    made = {}
    for dataset in {str(cards.task(name).dataset) for name in NAMES}:
        card, files = DATASET(dataset), []
        for file in card.files:
            if file.path.endswith(tuple(f"_{k}.txt" for k in range(1, 20))):
                continue  # one split will do
            written, splits = content(card, file.path)
            place = root / card.folder / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(written)
            digest = hashlib.sha256(written).hexdigest()
            files.append(dataclasses.replace(file, bytes=None, md5=None, sha256=digest))
        made[dataset] = dataclasses.replace(card, files=tuple(files), splits=splits)
    return root, made


@pytest.fixture
def small(miniatures: tuple[Path, dict[str, DatasetCard]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The miniatures are found where ``CURVEBENCH_DATA`` says."""
    root, made = miniatures
    monkeypatch.setenv("CURVEBENCH_DATA", str(root))
    monkeypatch.setattr(cards, "dataset", lambda name: made[name] if name in made else DATASET(name))


SMALL = {"mnist-mlp": {"train": 25, "hidden": "4"}, "mnist-autoencoder": {"train": 25, "hidden": "5-3"}}


def problem(name: str, seed_block: int = 0, **options: Any) -> Problem:
    card = cards.task(name)
    scale = card.at("quick")
    batch = scale.batch if scale.batch == "full" else 8
    given = {**scale.options, **SMALL.get(name, {}), **options}
    module = importlib.import_module(card.module)
    if card.module == "curvebench.tasks.logistic":  # the card's minimum is that of the official files
        value = logistic.minimise(*logistic.table(str(card.dataset)), float(given["l2"]))[1]
        card = at_optimum(card, value)
    found: Problem = module.problem(card, dataclasses.replace(scale, batch=batch, options=given), seed_block)
    return found


def at_optimum(card: TaskCard, value: float) -> TaskCard:
    assert card.optimum is not None
    return dataclasses.replace(card, optimum=dataclasses.replace(card.optimum, value=value))


# One of each module and loader: the others differ in their numbers alone.
KINDS = ["ridge-uci-yacht", "ridge-housing-scale", "logistic-a9a", "mlp-uci-energy", "mnist-mlp", "mnist-autoencoder"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", KINDS)
def test_every_offered_query_agrees_with_central_differences(name: str) -> None:
    card = cards.task(name)
    found = derivatives.errors(problem(name), card.offers)
    assert set(found) >= {str(q) for q in card.offers} - {"loss", "layer_statistics", "loss_function"}
    assert max(found.values()) < 1e-6


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", KINDS)
def test_torch_and_jax_agree_on_loss_gradient_and_products(name: str) -> None:
    assert derivatives.twin_error(problem(name), products=True) < 1e-10


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES)
def test_starts_follow_from_the_seed_block_and_batches_too(name: str) -> None:
    first, again, other = problem(name), problem(name), problem(name, 1)
    assert all(np.array_equal(p, again.parameters[n]) for n, p in first.parameters.items())
    assert any(not np.array_equal(p, other.parameters[n]) for n, p in first.parameters.items())
    assert np.array_equal(first.train.inputs, other.train.inputs)
    assert np.array_equal(first.order()[3], again.order()[3])
    assert first.batch is None or not np.array_equal(first.order()[3], other.order()[3])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", [n for n in NAMES if cards.task(n).metric.name == "gap" and "mnist" not in n])
def test_the_optimum_is_where_the_gradient_vanishes(name: str) -> None:
    at = problem(name)
    (x, y), l2 = at.train, at.l2
    solve = ridge.minimise if at.criterion == "squared" else logistic.minimise
    w, value, norm = solve(x, y, l2)
    ask = derivatives.Asker(at)
    assert ask(Query.LOSS, {"0.weight": w[None]})[0] - value == pytest.approx(0, abs=1e-14)
    assert np.linalg.norm(ask(Query.GRADIENT, {"0.weight": w[None]})) < 1e-13 > norm
    assert at.optimum == value
    for _ in range(3):
        assert (
            ask(Query.LOSS, {"0.weight": w[None] + 1e-4 * np.random.default_rng(0).standard_normal((1, len(w)))})
            > value
        )


@pytest.mark.usefixtures("small")
def test_nothing_of_the_test_part_or_of_validation_is_trained_on_or_scaled_by() -> None:
    at = problem("mlp-uci-yacht")
    assert at.validation is not None
    assert at.test is not None
    assert [len(s) for s in (at.train, at.validation, at.test)] == [25, 2, 3]
    assert np.abs(at.train.inputs.mean(axis=0)).max() < 1e-12
    assert at.train.inputs.std(axis=0) == pytest.approx(1)
    assert at.train.targets.std() == pytest.approx(1)
    rows = {row.tobytes() for s in (at.train, at.validation, at.test) for row in s.inputs}
    assert len(rows) == 30
    raw = tables.regression("uci-yacht").train
    scale = raw.targets.std() * at.validation.targets[:, 0]
    assert not np.allclose(scale.mean(), 0)


@pytest.mark.usefixtures("small")
def test_the_pixels_entropy_bounds_the_autoencoder() -> None:
    at = problem("mnist-autoencoder")
    x = at.train.inputs.astype(np.float64)
    assert x.min() >= 0
    assert x.max() <= 1
    inside = np.clip(x, 1e-12, 1 - 1e-12)
    logits = np.log(inside / (1 - inside))
    assert np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=1)) == pytest.approx(
        autoencoder.entropy(x), abs=1e-6
    )
    assert at.optimum == autoencoder.entropy(x)


@pytest.mark.parametrize("name", NAMES)
def test_without_its_files_a_task_is_refused_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURVEBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError) as raised:
        tasks.load(cards.task(name), "quick", 0)
    dataset = str(cards.task(name).dataset)
    assert f"curvebench data fetch {dataset}" in str(raised.value) or "no official address" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_constant_columns_stay_zero_and_wrong_data_sets_are_refused() -> None:
    rows = np.stack([np.full(5, 0.1), np.arange(5.0)], axis=1)
    assert np.array_equal(tables.Scaler(rows)(rows)[:, 0], np.zeros(5))
    with pytest.raises(ValueError, match="dataset = 'wine': must be 'diabetes'"):
        tables.regression("wine")
    with pytest.raises(ValueError, match="dataset = 'abalone-scale': must be 'breast-cancer'"):
        logistic.table("abalone-scale")
    with pytest.raises(ValueError, match="must have at least 10"):
        tables.held_out(tables.Split(rows, rows[:, 0]), "five")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["logistic-phishing", "logistic-mushrooms", *(n for n in NAMES if "ridge" in n)])
def test_the_minimum_on_the_card_is_the_real_datas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))
    card = cards.task(name)
    assert card.optimum is not None
    at = tasks.load(card, "quick", 0)
    solve = ridge.minimise if at.criterion == "squared" else logistic.minimise
    _, value, norm = solve(*at.train, at.l2)
    assert norm < 1e-13
    assert abs(value - card.optimum.value) <= card.optimum.tolerance


@pytest.mark.shared
@pytest.mark.nightly
@pytest.mark.parametrize("name", ["logistic-a9a", "logistic-w8a"])
def test_the_minimum_of_the_large_tables_is_the_real_datas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    test_the_minimum_on_the_card_is_the_real_datas(name, monkeypatch)
