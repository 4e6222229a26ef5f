"""The top-level folders hold content, the package holds code, files stay short and are named after their subject."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from curvebench import cards

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "curvebench"
CONTENT = ("methods", "datasets", "tasks", "studies", "papers")
MOST_LINES = 500


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if "__pycache__" not in path.parts)


@pytest.mark.parametrize("folder", CONTENT)
def test_folders_of_content_hold_no_code(folder: str) -> None:
    # A folder `datasets` with code in it shadows Hugging Face's package whenever the root is on sys.path.
    code = [path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".pyi", ".so", ".pyc"}]
    assert not code


@pytest.mark.parametrize("kind", cards.KINDS)
def test_folders_of_cards_exist_and_are_the_ones_in_use(kind: str) -> None:
    assert list((ROOT / kind).glob("*.toml"))
    assert cards.root() == ROOT


@pytest.mark.parametrize("kind", cards.KINDS)
def test_every_card_parses(kind: str) -> None:
    stems = {path.stem for path in (ROOT / kind).glob("*.toml")}
    assert {card.name for card in cards.load_all(kind)} == stems


def test_only_the_package_is_importable_below_src() -> None:
    assert [path.name for path in (ROOT / "src").iterdir() if not path.name.endswith(".egg-info")] == ["curvebench"]


def test_no_file_is_named_utils() -> None:
    names = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert not [path for path in files(SOURCE, "*.py") if path.name in names]


def test_no_loader_folder_is_named_datasets() -> None:
    assert not (SOURCE / "datasets").exists()


def test_files_are_short() -> None:
    folders = [SOURCE, ROOT / "tests", ROOT / "benchmarks", ROOT / "tools"]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for f in folders for path in files(f, "*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_every_package_has_an_init() -> None:
    # Without one a folder is a namespace package: linters and mypy (namespace_packages = false) pass over it.
    folders = {path.parent for path in files(SOURCE, "*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_tests_have_no_conftest_at_the_root() -> None:
    assert not (ROOT / "conftest.py").exists()


def test_the_package_is_marked_as_typed() -> None:
    assert (SOURCE / "py.typed").exists()


def test_constraints_pin_what_is_required_but_torch() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            assert [s.operator for s in requirement.specifier] == ["=="], line
            pins[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(r for lines in project["optional-dependencies"].values() for r in lines)]
    for requirement in map(Requirement, required):
        name = canonicalize_name(requirement.name)
        if name in {"torch", "curvebench"}:
            assert name not in pins
        else:
            assert requirement.specifier.contains(pins[name]), f"{requirement} does not admit {pins[name]}"


def test_the_installer_pins_a_torch_that_is_admitted() -> None:
    from packaging.requirements import Requirement

    text = (ROOT / "tools" / "install.py").read_text()
    pinned = next(line.split('"')[1] for line in text.splitlines() if line.startswith("TORCH = "))
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["torch"]
    assert Requirement(extra[0]).specifier.contains(pinned)


def test_second_opinions_come_without_torchvision_and_the_rest_of_their_needs_is_required() -> None:
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    text = tomllib.loads((ROOT / "pyproject.toml").read_text())
    group = text["dependency-groups"]["second-opinions"]
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert set(group) <= set(constraints), "pinned, since nothing else holds them"
    ours = [
        *text["project"]["dependencies"],
        *(r for e in text["project"]["optional-dependencies"].values() for r in e),
    ]
    names = {canonicalize_name(Requirement(line).name) for line in [*ours, *group]}
    assert "torchvision" not in names
    for requirement in map(Requirement, group):
        try:
            needs = [Requirement(line) for line in requires(requirement.name) or ()]
        except PackageNotFoundError:
            pytest.skip(f"{requirement.name} is not installed")
        inner = {canonicalize_name(need.name) for need in needs if need.marker is None}
        assert inner - names <= {"torchvision"}, requirement.name
