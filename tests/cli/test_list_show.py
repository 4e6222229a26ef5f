"""``list`` and ``show``."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from curvebench import cards
from curvebench.cli.main import cli


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.mark.parametrize("kind", cards.KINDS)
def test_list_json(kind: str) -> None:
    result = invoke("list", kind, "--json")
    assert result.exit_code == 0
    assert [row["name"] for row in json.loads(result.stdout)] == cards.names(kind)


def test_list_json_has_the_scalars() -> None:
    rows = {row["name"]: row for row in json.loads(invoke("list", "methods", "--json").stdout)}
    adam = rows["adam"]
    assert adam["title"] == "Adam"
    assert adam["family"] == "first-order"
    assert adam["needs"] == ["gradient"]
    assert adam["frameworks"] == ["jax", "torch"]
    assert adam["summary"] == cards.method("adam").summary
    assert rows["lbfgs"]["twin"] is False


def test_list_is_aligned() -> None:
    lines = invoke("list", "methods").stdout.splitlines()
    assert lines[0].split() == ["name", "family", "needs", "frameworks", "title"]
    assert [line.split()[0] for line in lines[1:]] == cards.names("methods")
    column = lines[0].index("family")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_list_takes_the_singular_and_refuses_the_unknown() -> None:
    assert invoke("list", "method").stdout == invoke("list", "methods").stdout
    result = invoke("list", "mehtods")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: unknown kind 'mehtods': did you mean 'methods'?\n"


def test_one_broken_card_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.toml").write_text("= 1", encoding="utf-8")
    (tmp_path / "methods" / "good.toml").write_text('name = "good"\ntitle = "Good"\n', encoding="utf-8")
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    result = invoke("list", "methods")
    assert result.exit_code == 2
    assert result.stdout.splitlines() == ["name  title", "bad", "good  Good"]
    assert result.stderr == "methods/bad.toml: line 1, column 1: not TOML: Invalid statement\n"


def test_an_empty_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    assert invoke("list", "studies", "--json").stdout == "[]\n"
    assert invoke("list", "studies").stdout == ""


def test_show_method() -> None:
    text = invoke("show", "method", "adahessian").stdout
    card = cards.method("adahessian")
    assert text.startswith("AdaHessian  (methods/adahessian.toml)\n")
    for name, entry in card.hyperparameters.items():
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name] and entry.about in line]
        if entry.range:
            assert entry.range in line
    assert "0.001 .. 1 log" in text
    assert "conv | row | none" in text
    assert "gradient, hvp" in text
    assert "1/hessian_every" in text
    assert "2*d numbers" in text
    for implementation in card.implementation.values():
        assert implementation.target in text
    assert card.digest in text


def test_show_says_why_twins_differ() -> None:
    reason = cards.method("lbfgs").twin_reason
    assert reason is not None
    assert f"no: {reason}" in invoke("show", "method", "lbfgs").stdout


@pytest.mark.parametrize("kind", cards.KINDS)
def test_show_json_is_the_card(kind: str) -> None:
    for name in cards.names(kind):
        card = cards.load(kind, name)
        found = json.loads(invoke("show", kind, name, "--json").stdout)
        assert found.pop("digest") == card.digest
        assert found.pop("path") == f"{kind}/{name}.toml"
        assert found == json.loads(json.dumps(card.to_json()))


@pytest.mark.parametrize("kind", ["tasks", "datasets", "studies", "papers"])
def test_show_text_says_everything(kind: str) -> None:
    for name in cards.names(kind):
        result = invoke("show", kind, name)
        assert result.exit_code == 0
        for key, value in cards.load(kind, name).to_json().items():
            if value not in (None, [], {}, ""):
                assert key in result.stdout or value in result.stdout


def test_show_a_file(tmp_path: Path) -> None:
    text = cards.path_of("methods", "sgd").read_text(encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_text(text.replace('name = "sgd"', 'name = "mine"'), encoding="utf-8")
    result = invoke("show", "method", str(file))
    assert result.stdout.startswith(f"SGD  ({file})\n")


def test_show_unknown() -> None:
    result = invoke("show", "task", "least-square")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: unknown task 'least-square': did you mean 'least-squares'")
