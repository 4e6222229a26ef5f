"""Valid cards: fields, resolve, arguments, digests, places."""

import dataclasses
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curvebench
from curvebench import cards
from curvebench.cards import places
from curvebench.errors import CardError, HyperparameterError
from curvebench.spec import Query


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_method(root: Path) -> None:
    card = cards.method("mine")
    assert card.path == root / "methods" / "mine.toml"
    assert card.needs == (Query.GRADIENT,)
    assert card.twin
    assert card.frameworks == ("torch",)
    assert card.search["lr"] == cards.Search(low=1e-4, high=0.1, scale="log")
    assert card.hyperparameters["mode"].choices == ("fast", "slow")
    assert card.cost.step == {Query.GRADIENT: "1/steps"}
    assert card.queries_per_step({"steps": 4}, d=10) == {"gradient": 0.25}
    assert card.state_numbers(card.resolve({}), d=10) == 20


def test_task(root: Path) -> None:
    card = cards.task("valley")
    assert card.refuses == {Query.HVP: "no second derivative: use hill"}
    assert card.options == {"n": 10, "sizes": (1, 2)}
    quick, standard = card.at("quick"), card.at("standard")
    assert quick == cards.TaskScale(
        steps=5, batch="full", evaluate_every=1, target=1e-3, options={"n": 10, "sizes": (1, 2)}
    )
    assert (standard.seconds, standard.batch, standard.options) == (2.0, 4, {"n": 100, "sizes": (1, 2)})
    assert isinstance(standard.seconds, float)
    with pytest.raises(CardError, match=r"^valley: no scale 'paper': known are quick, standard$"):
        card.at("paper")


def test_dataset_and_study(root: Path) -> None:
    dataset, study = cards.dataset("numbers"), cards.study("small")
    assert dataset.archives[0].mirrors == ()
    assert dataset.files[0].md5 is None
    assert dataset.splits == {"train": 6, "test": 2}
    assert dataset.normalisation == cards.Normalisation(mean=(0.5, 0.5), std=(1.0, 2.0))
    assert (study.methods, study.seeds, study.budget) == (("mine",), 3, None)
    edit(root / "studies" / "small.toml", 'scale = "quick"', 'scale = "quick"\nbudget = { seconds = 3 }')
    assert cards.study("small").budget == cards.StudyBudget(seconds=3.0)


def test_cards_are_frozen_and_pickle(root: Path) -> None:
    card = cards.method("mine")
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.title = "x"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(card))
    assert copy == card
    assert hash(copy) == hash(card)
    assert copy.path == card.path


def test_resolve_fills_sorts_and_converts(root: Path) -> None:
    card = cards.method("mine")
    assert card.resolve({}) == (("lr", 1e-3), ("mode", "fast"), ("nesterov", False), ("steps", 3))
    given_values: dict[str, Any] = {"lr": 1, "steps": 4.0, "nesterov": "true", "mode": "slow"}
    resolved = dict(card.resolve(given_values))
    assert resolved == {"lr": 1.0, "steps": 4, "nesterov": True, "mode": "slow"}
    assert {name: type(value) for name, value in resolved.items()} == {
        "lr": float, "steps": int, "nesterov": bool, "mode": str,
    }  # fmt: skip
    assert dict(card.resolve({"lr": "1e-2", "steps": "7"}))["lr"] == 0.01


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"lr": -1.0}, "mine: lr = -1.0: must lie in (0, inf)"),
        ({"lr": float("nan")}, "mine: lr = nan: must lie in (0, inf)"),
        ({"lr": float("inf")}, "mine: lr = inf: must lie in (0, inf)"),
        ({"lr": "fast"}, "mine: lr = fast: must be a number"),
        ({"lr": True}, "mine: lr = True: must be a number"),
        ({"steps": 2.5}, "mine: steps = 2.5: must be a whole number"),
        ({"steps": "many"}, "mine: steps = many: must be a whole number"),
        ({"steps": 11}, "mine: steps = 11: must lie in [1, 10]"),
        ({"steps": True}, "mine: steps = True: must be a whole number"),
        ({"mode": "fats"}, "mine: mode = fats: must be 'fast' or 'slow'"),
        ({"nesterov": 1}, "mine: nesterov = 1: must be true or false"),
        ({"stepz": 1}, "mine: stepz: unknown hyperparameter: did you mean 'steps'?"),
        ({"zzz": 1, "lr": 0}, "mine: zzz: unknown hyperparameter: known are lr, mode, nesterov, steps\n"
         "mine: lr = 0: must lie in (0, inf)"),
    ],
)  # fmt: skip
def test_resolve_refuses(root: Path, given_values: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError) as caught:
        cards.method("mine").resolve(given_values)
    assert str(caught.value) == message


def test_arguments(root: Path) -> None:
    card = cards.method("mine")
    arguments = card.arguments("torch", card.resolve({"lr": 0.5}))
    assert arguments == {"lr": 0.5, "pair": (3, 2), "inner": {"mode": "fast"}, "nesterov": False, "word": "plain"}
    assert card.arguments("torch", dict(card.resolve({"lr": 0.5}))) == arguments
    with pytest.raises(CardError, match=r"^mine: no implementation in jax: there is torch$"):
        card.arguments("jax", card.resolve({}))
    with pytest.raises(HyperparameterError, match=r"^mine: lr: no value given: pass what resolve\(\) returned$"):
        card.arguments("torch", {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title = ", "# a comment\ntitle   = "),
        ('needs = ["gradient"]\n', 'needs = ["gradient"]\ntwin = true\n'),
        ("default = 1e-3", "default = 0.001"),
        ("[cost]\n", "[cost] # per step\n"),
        ('\nscale = "log"', ""),
    ],
)
def test_digest_ignores_form(root: Path, old: str, new: str) -> None:
    before = cards.method("mine").digest
    edit(root / "methods" / "mine.toml", old, new)
    assert cards.method("mine").digest == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("default = 1e-3", "default = 2e-3"),
        ('needs = ["gradient"]', 'needs = ["gradient", "loss"]'),
        ('"$steps", 2', '"$steps", 3'),
        ('word = "plain"', 'word = "fancy"'),
        ("torch.optim:SGD", "torch.optim:Adam"),
        ('scale = "log"', 'scale = "linear"'),
    ],
)
def test_digest_sees_content(root: Path, old: str, new: str) -> None:
    before = cards.method("mine")
    edit(root / "methods" / "mine.toml", old, new)
    after = cards.method("mine")
    assert after.digest != before.digest
    assert after != before
    assert len(after.digest) == 64


def test_digest_is_the_same_in_every_process(root: Path) -> None:
    program = "from curvebench import cards; print(cards.method('mine').digest)"
    source = str(Path(curvebench.__file__).parents[1])
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": salt, "CURVEBENCH_CARDS": str(root), "PYTHONPATH": source},
        ).stdout.strip()
        for salt in ("1", "2")
    }  # fmt: skip
    assert outputs == {cards.method("mine").digest}


def test_equal_cards_from_file_and_dict(root: Path) -> None:
    import tomllib

    data = tomllib.loads((root / "methods" / "mine.toml").read_text(encoding="utf-8"))
    built = cards.build("methods", data, "memory")
    assert built == cards.method("mine")
    assert built.path is None
    assert built != cards.study("small")


def test_to_json_round_trips(root: Path) -> None:
    for kind, name in (
        ("methods", "mine"),
        ("tasks", "valley"),
        ("datasets", "numbers"),
        ("studies", "small"),
        ("papers", "claim"),
    ):
        card = cards.load(kind, name)
        plain = {key: value for key, value in card.to_json().items() if value is not None}
        plain = _without_none(plain)
        assert cards.build(kind, plain, "memory") == card


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.text(max_size=5) | st.booleans())
def test_resolve_never_lets_a_bad_value_through(value: float | int | str | bool) -> None:
    hyperparameter = cards.Hyperparameter(default=0.5, range="[0, 1)")
    try:
        converted = hyperparameter.convert(value)
    except ValueError:
        return
    assert isinstance(converted, float)
    assert 0 <= converted < 1


def test_twin_false_lets_frameworks_differ(root: Path) -> None:
    file = root / "methods" / "mine.toml"
    edit(file, 'needs = ["gradient"]', 'needs = ["gradient"]\ntwin = false\ntwin_reason = "they differ"')
    extra = '\n[implementation.jax]\ntarget = "optax:sgd"\narguments = { learning_rate = "$lr" }\n'
    file.write_text(file.read_text(encoding="utf-8") + extra, encoding="utf-8")
    card = cards.method("mine")
    assert card.arguments("jax", card.resolve({})) == {"learning_rate": 1e-3}
    edit(file, 'twin = false\ntwin_reason = "they differ"\n', "")
    with pytest.raises(CardError, match=r"hyperparameters\.steps: not used in implementation\.jax\.arguments"):
        cards.method("mine")


def test_names_do_not_parse(root: Path) -> None:
    (root / "methods" / "broken.toml").write_text("= no toml", encoding="utf-8")
    assert cards.names("methods") == ["broken", "mine"]


def test_headings(root: Path) -> None:
    (root / "methods" / "broken.toml").write_text("= no toml", encoding="utf-8")
    rows, problems = cards.headings("methods")
    assert rows == [
        {"name": "broken", "frameworks": []},
        {"name": "mine", "title": "Mine", "family": "first-order", "summary": "Goes downhill.", "needs": ["gradient"],
         "frameworks": ["torch"]},
    ]  # fmt: skip
    assert problems == ["methods/broken.toml: line 1, column 1: not TOML: Invalid statement"]


def test_root_from_the_environment(root: Path) -> None:
    assert cards.root() == root
    assert cards.origin() == "the environment variable CURVEBENCH_CARDS says so"


def test_root_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path / "nothing"))
    with pytest.raises(CardError) as caught:
        cards.root()
    assert str(caught.value) == (
        f"CURVEBENCH_CARDS = '{tmp_path}/nothing': must be a folder with at least one of methods, tasks, datasets, "
        "studies, papers in it"
    )


def test_root_is_never_the_working_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURVEBENCH_CARDS")
    monkeypatch.chdir(root)
    assert cards.root() != root


def test_a_changed_file_is_read_again(root: Path) -> None:
    assert cards.method("mine").title == "Mine"
    edit(root / "methods" / "mine.toml", 'title = "Mine"', 'title = "Ours"')
    assert cards.method("mine").title == "Ours"


def test_a_file_outside_the_root(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("elsewhere") / "mine.toml"
    outside.write_bytes((root / "methods" / "mine.toml").read_bytes())
    assert cards.load_file("methods", outside) == cards.method("mine")
    outside.write_text("x = 1", encoding="utf-8")
    with pytest.raises(CardError, match=f"^{outside}: name: missing key"):
        cards.load_file("methods", outside)


def test_loading_imports_no_framework(root: Path) -> None:
    program = (
        "import sys; from curvebench import cards; [cards.load_all(kind) for kind in cards.KINDS];"
        "print(sorted({'torch', 'jax', 'numpy', 'optax'} & set(sys.modules)));"
    )
    light = "import sys; from curvebench import cards; cards.names('methods'); print('pydantic' in sys.modules)"
    for code, expected in ((program, "[]"), (light, "False")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cards.nothing  # noqa: B018


def test_every_exported_name_exists() -> None:
    assert all(getattr(cards, name) is not None for name in cards.__all__)


def test_a_hundred_cards_load_fast(root: Path) -> None:
    text = (root / "methods" / "mine.toml").read_text(encoding="utf-8")
    for index in range(100):
        file = root / "methods" / f"mine{index}.toml"
        file.write_text(text.replace('name = "mine"', f'name = "mine{index}"'), encoding="utf-8")
    cards.method("mine")  # the validator is imported once
    start = time.process_time()
    assert len(cards.load_all("methods")) == 101
    # 0.07 s on an idle core; ten times that means that something is built again for every card
    assert time.process_time() - start < 0.7


def test_root_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lib" / "site-packages" / "curvebench"
    (package / "_cards" / "methods").mkdir(parents=True)
    monkeypatch.setattr(curvebench, "__file__", str(package / "__init__.py"))
    with pytest.raises(CardError, match=r"^no cards: neither the installed package nor a checkout"):
        places._own.__wrapped__()
    (package / "_cards" / "methods" / "a.toml").touch()
    assert places._own.__wrapped__() == (package / "_cards", "the cards that the installed package carries")
    checkout = package.parents[1] / "methods"
    checkout.mkdir()  # an empty folder of that name is no checkout
    assert places._own.__wrapped__()[0] == package / "_cards"
    (checkout / "a.toml").touch()
    found, why = places._own.__wrapped__()
    assert (found, why) == (checkout.parent, "curvebench runs from a checkout, and methods/ stands at its top")
