"""The images are what docs/how-to/use-an-image.md says: stages, user, entry point, pins, services, refusals."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = [ROOT / "docker" / "Dockerfile", ROOT / "docker" / "Dockerfile.cuda"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, comments left out and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def stages(path: Path) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(path):
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_last_stage_runs_curvebench_as_a_plain_user(path: Path) -> None:
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in instructions(path)} <= known
    build, final = stages(path)
    assert build[0] == ("FROM", "${BASE} AS build")
    assert final[0] == ("FROM", "${BASE}")
    words = dict(final)
    assert words["USER"] == "1000:1000"
    assert json.loads(words["ENTRYPOINT"]) == ["curvebench"]
    assert json.loads(words["VOLUME"]) == ["/data", "/work/results"]
    assert [word for word, _ in final].index("USER") > [word for word, _ in final].index("RUN")
    assert "pip install" not in words["RUN"], "what installs stays in the first stage"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_everything_is_pinned_and_nothing_is_fetched_by_address(path: Path) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions(path) if word == "ARG")
    assert re.fullmatch(r"[\w./-]+:3\.11-[\w-]+(@sha256:[0-9a-f]{64})?", arguments["BASE"])
    assert f'TORCH = "{arguments["TORCH"]}"' in (ROOT / "tools" / "install.py").read_text()
    assert not [rest for word, rest in instructions(path) if word in {"ADD", "COPY"} and "://" in rest]
    text = " ".join(rest for word, rest in instructions(path) if word == "RUN")
    installs = re.findall(r"pip install [^&]+", text)
    assert installs
    assert all("-c constraints.txt" in call or '--no-deps "torch==$TORCH"' in call for call in installs)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_not_ignored(path: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for word, rest in stages(path)[0] if word == "COPY" for name in rest.split()[:-1]]
    assert set(copied) <= kept
    assert all((ROOT / name).exists() for name in copied)
    hook = (ROOT / "hatch_build.py").read_text()
    folders = re.findall(r'"([\w/]+)"', re.search(r"FOLDERS = \((.*?)\)", hook).group(1))  # type: ignore[union-attr]
    assert set(folders) <= set(copied), "the wheel in the image would lack cards"


def test_compose_has_bench_nightly_and_the_report_server() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"bench", "nightly", "report"}
    for service in services.values():
        assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        mounted = [volume.split(":") for volume in service["volumes"]]
        assert {place for _, place in mounted} == {"/data", "/work/results"}
        assert {name for name, _ in mounted} == set(compose["volumes"])
        assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in services["report"]["ports"])


def test_the_apptainer_definition_names_the_same_versions() -> None:
    text = (ROOT / "docker" / "curvebench.def").read_text()
    sections = set(re.findall(r"^%(\w+)", text, re.MULTILINE))
    assert sections == {"arguments", "files", "post", "environment", "runscript", "test", "labels"}
    given = dict(line.strip().split("=", 1) for line in text.split("%arguments")[1].split("%files")[0].split())
    arguments = dict(rest.split("=", 1) for word, rest in instructions(DOCKERFILES[0]) if word == "ARG")
    assert given.pop("BASE") == arguments["BASE"].removeprefix("docker.io/library/")
    assert given == {key: arguments[key] for key in given}
    assert set(re.findall(r"{{ (\w+) }}", text)) == {"BASE", *given}


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """A folder to be all of PATH; a test puts engines there that print how they were called."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def put(folder: Path, name: str, body: str = 'echo "$0" "$@"') -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def image(path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / "tools" / "image.sh"), *(arguments or ("cpu", "curvebench"))]
    environ = {"PATH": str(path), **variables}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_make_image_without_an_engine_says_so(engines: Path) -> None:
    make = next(p for p in map(Path, ("/usr/bin/make", "/usr/local/bin/make", "/opt/homebrew/bin/make")) if p.exists())
    environ = {"PATH": str(engines)}
    done = subprocess.run([make, "image"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "image: no engine works here: docker (client and daemon), podman or buildah is needed" in done.stderr


@pytest.mark.parametrize(
    ("variables", "arguments", "sentence"),
    [
        ({"ENGINE": "podman"}, (), "ENGINE=podman is not installed, or its daemon does not answer"),
        ({"ENGINE": "kaniko"}, (), "ENGINE=kaniko is not supported; it is docker, podman or buildah"),
        ({}, ("rocm", "curvebench"), "TORCH=rocm is no kind of image; it is cpu or cuda"),
    ],
)
def test_a_bad_word_is_named(
    engines: Path, variables: dict[str, str], arguments: tuple[str, ...], sentence: str
) -> None:
    done = image(engines, *arguments, **variables)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_docker_client_without_a_daemon_is_passed_over(engines: Path) -> None:
    put(engines, "docker", "exit 1")
    put(engines, "buildah")
    done = image(engines, "cuda", "mine", BASE="base@sha256:0", IMAGE_FLAGS="--layers=false --pull-never")
    words = done.stdout.splitlines()[-1].split()
    assert words[0].endswith("/buildah")
    assert words[1:] == [
        *("build", "--build-arg", "BASE=base@sha256:0", "--layers=false", "--pull-never"),
        *("--tag", "mine:cuda", "--file", "docker/Dockerfile.cuda", "."),
    ]


def test_the_check_says_why_it_cannot_run(engines: Path) -> None:
    for tool in ("dirname",):
        (engines / tool).symlink_to(f"/usr/bin/{tool}")
    command = ["/bin/bash", str(ROOT / "tools" / "image_check.sh")]
    done = subprocess.run(command, env={"PATH": str(engines)}, capture_output=True, text=True, check=False)
    assert done.returncode == 77
    assert "image-check: not run: buildah is not installed" in done.stdout


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_compare", ROOT / "tools" / "image_compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_comparison_sees_all_but_times_and_memory(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"method": "sgd", "framework": "torch", "final": 0.5, "seconds": 1.0, "seconds_low": 0.9, "memory_mib": 3}
    files = [tmp_path / "host.json", tmp_path / "image.json"]

    def run(**changes: object) -> int:
        for path, cells in zip(files, (row, {**row, **changes}), strict=True):
            path.write_text(json.dumps({"tables": [{"task": "t", "rows": [cells]}]}))
        return int(compare.main(list(map(str, files))))

    assert run(seconds=7.0, seconds_low=None, memory_mib=9) == 0
    assert run(final=0.5000000001) == 1
    assert "t / sgd / torch: final is 0.5 on the host and 0.5000000001 in the image" in capsys.readouterr().out
    assert run(framework="jax") == 1
    assert "t / sgd / jax: only the image has this row" in capsys.readouterr().out
    files[0].write_text(json.dumps({"tables": []}))
    assert compare.main(list(map(str, files))) == 2
    assert "no rows" in capsys.readouterr().err


def test_scripts_parse() -> None:
    for shell, name in (("sh", "image.sh"), ("bash", "image_check.sh")):
        script = ROOT / "tools" / name
        assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0
        assert os.access(script, os.X_OK)
