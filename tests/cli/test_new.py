"""``new method``: what it writes is valid, runs, and overwrites nothing."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from curvebench import cards
from curvebench.cli.main import cli


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_the_card_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("new", "method", "my-method")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "my-method.toml"
    assert [path.name for path in tmp_path.iterdir()] == ["my-method.toml"]
    card = cards.load_file("methods", "my-method.toml")
    assert isinstance(card, cards.MethodCard)
    assert card.arguments("torch", card.resolve({})) == {"lr": 0.01, "momentum": 0.0}
    assert card.title == "My Method"
    assert "# " in (tmp_path / "my-method.toml").read_text(encoding="utf-8")


def test_what_it_says_next_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    advice = invoke("new", "method", "mine", "--dir", "sub").stdout.splitlines()[-1]
    command = advice.partition("curvebench ")[2].partition(" and ")[0].split()
    assert command == ["show", "method", "./sub/mine.toml"]
    assert invoke(*command).exit_code == 0


def test_curvature_writes_an_optimiser_that_optimises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = invoke("new", "method", "fresh-idea", "--curvature", "--dir", str(tmp_path))
    assert result.exit_code == 0
    card = cards.load_file("methods", tmp_path / "fresh-idea.toml")
    assert isinstance(card, cards.MethodCard)
    assert card.implementation["torch"].target == "fresh_idea:FreshIdea"
    assert [str(query) for query in card.needs] == ["gradient", "hvp"]

    spec = importlib.util.find_spec("fresh_idea")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theta = torch.ones(20, dtype=torch.float64, requires_grad=True)
    scales = torch.logspace(0, 4, 20, dtype=torch.float64)
    optimizer = module.FreshIdea([theta], **card.arguments("torch", card.resolve({"lr": 0.5})))
    for _ in range(40):
        optimizer.step(lambda: (scales * theta.square()).sum() / 2)
    # gradient descent would need lr < 2e-4 here and leave the flat directions where they are
    assert float(theta.detach().abs().max()) < 1e-6
    with pytest.raises(ValueError, match="lr = -1"):
        module.FreshIdea([theta], lr=-1)
    lines = (tmp_path / "fresh_idea.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120
    sys.modules.pop("fresh_idea", None)


@pytest.mark.parametrize("existing", ["my-method.toml", "my_method.py"])
def test_nothing_is_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious", encoding="utf-8")
    result = invoke("new", "method", "my-method", "--curvature", "--dir", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {tmp_path / existing}: exists already: choose another name or --dir, or remove it\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My_Method", "name = 'My_Method': must be lower-case letters, digits and single hyphens"),
        ("../evil", "name = '../evil': must be lower-case letters, digits and single hyphens"),
        ("random", "name = 'random': random.py could not be imported: choose another name"),
        ("2nd", "name = '2nd': 2nd.py could not be imported: choose another name"),
    ],
)
def test_bad_names(tmp_path: Path, name: str, message: str) -> None:
    result = invoke("new", "method", name, "--curvature", "--dir", str(tmp_path))
    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_no_code_beside_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    result = invoke("new", "method", "mine", "--curvature", "--dir", str(tmp_path / "methods"))
    assert result.exit_code == 2
    assert "holds cards and no code" in result.stderr
    assert list((tmp_path / "methods").iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = invoke("new", "method", "mine", "--dir", str(tmp_path / "file" / "sub"))
    assert result.exit_code == 2
    assert result.stderr == f"Error: {tmp_path}/file/sub: cannot be written to: Not a directory\n"
