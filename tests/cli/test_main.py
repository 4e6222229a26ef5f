"""The entry point: exit codes, stderr, lazy verbs, colour, completion. Real processes where a shell would see them."""

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

import curvebench
from curvebench.cli.lazy import LazyGroup
from curvebench.cli.main import VERBS, cli
from curvebench.errors import CardError, StudyInterrupted

PRESENT = [verb for verb, (module, _) in VERBS.items() if importlib.util.find_spec(module)]


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "curvebench", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_version() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"curvebench, version {curvebench.__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_teaches(flag: str) -> None:
    done = process(flag)
    assert done.returncode == 0
    assert "Examples:\n" in done.stdout
    for verb in PRESENT:
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", PRESENT)
def test_every_verb_teaches_by_example(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"curvebench {verb}" in result.output.partition("Examples:")[2]


def test_every_verb_with_a_module_is_in_the_table() -> None:
    folder = Path(curvebench.__file__).parent / "cli"
    commands = set()
    for path in folder.glob("*.py"):
        if "@click.command(" in (text := path.read_text(encoding="utf-8")) or "@click.group(" in text:
            commands.add(path.stem)
    assert commands - {"main"} <= {module.rpartition(".")[2] for module, _ in VERBS.values()}


def test_unknown_verb_names_the_nearest() -> None:
    done = process("lst", "methods")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "Error: unknown verb 'lst': did you mean 'list'?"
    assert "Traceback" not in done.stderr


def test_unknown_option() -> None:
    done = process("list", "methods", "--jsn")
    assert done.returncode == 2
    assert "--json" in done.stderr


def test_expected_failure_is_a_sentence() -> None:
    done = process("show", "method", "adm")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: unknown method 'adm': did you mean 'adam' or ")


def test_bad_card_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    text = (Path(curvebench.__file__).parents[2] / "methods" / "adam.toml").read_text(encoding="utf-8")
    (tmp_path / "methods" / "adam.toml").write_text(text.replace("low = 1e-4", "low = -1.0"), encoding="utf-8")
    done = process("show", "method", "adam", CURVEBENCH_CARDS=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "Error: methods/adam.toml: search.lr.low = -1.0: must be > 0\n"


def group(verb: str, function: Any, monkeypatch: pytest.MonkeyPatch) -> LazyGroup:
    module = ModuleType(f"verb_{verb}")
    module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
    module.command = click.command(verb)(function)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return LazyGroup("curvebench", verbs={verb: (module.__name__, "a verb"), "gone": ("curvebench.cli.gone", "none")})


def failing(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (CardError("methods/x.toml: y: wrong"), 2, "Error: methods/x.toml: y: wrong\n"),
        (click.FileError("x", "no"), 2, "Error: Could not open file 'x': no\n"),
        (ModuleNotFoundError("No module named 'seaborn'", name="seaborn"), 2,
         "Error: this needs the package 'seaborn': pip install 'curvebench[report]'\n"),
        (ModuleNotFoundError("No module named 'torch.x'", name="torch.x"), 2,
         "Error: this needs the package 'torch': pip install 'curvebench[torch]'\n"),
        (StudyInterrupted("stopped: run the same command to go on"), 130, "stopped: run the same command to go on\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (click.exceptions.Exit(3), 3, ""),
    ],
)  # fmt: skip
def test_exit_codes(error: BaseException, code: int, stderr: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(group("fail", failing(error), monkeypatch), ["fail"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, stderr, "")


@pytest.mark.parametrize("error", [ValueError("a defect"), ModuleNotFoundError("nothing", name="curvebench.nothing")])
def test_a_defect_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(group("fail", failing(error), monkeypatch), ["fail"])
    assert result.exception is error


def test_a_missing_module_does_not_break_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made = group("work", lambda: click.echo("done"), monkeypatch)
    runner = CliRunner()
    assert runner.invoke(made, ["work"]).stdout == "done\n"
    assert "gone" not in runner.invoke(made, ["--help"]).output
    result = runner.invoke(made, ["gone"])
    assert result.exit_code == 2
    assert "unknown verb 'gone': known are work" in result.stderr


def test_a_module_without_a_command_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    made = group("work", lambda: None, monkeypatch)
    del sys.modules["verb_work"].command
    with pytest.raises(TypeError, match="must define a click command named 'command' or 'work'"):
        made.get_command(click.Context(made), "work")


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    made = group("fail", failing(CardError("wrong")), monkeypatch)
    monkeypatch.delenv("NO_COLOR")
    assert CliRunner().invoke(made, ["fail"], color=True).stderr == "\x1b[31m\x1b[1mError: \x1b[0mwrong\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert CliRunner().invoke(made, ["fail"], color=True).stderr == "Error: wrong\n"


def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    program = (
        "import signal, sys, types, time, click, importlib.util\n"
        "from curvebench.cli.lazy import LazyGroup\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "module = types.ModuleType('slow_verb')\n"
        "module.__spec__ = importlib.util.spec_from_loader('slow_verb', loader=None)\n"
        "@click.command('slow')\n"
        "def slow():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "module.command = slow\n"
        "sys.modules['slow_verb'] = module\n"
        "LazyGroup('curvebench', verbs={'slow': ('slow_verb', '')}).main(['slow'], prog_name='curvebench')\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=30)
    assert child.returncode == 130
    assert stderr.strip() == "interrupted"


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["list", "tasks", "--json"]])
def test_instant_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from curvebench.cli.main import cli\n"
        f"cli.main({arguments!r}, prog_name='curvebench', standalone_mode=False)\n"
        "heavy = {'numpy', 'pydantic', 'torch', 'jax', 'scipy', 'pandas', 'rich', 'seaborn', 'asyncio', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_list_is_instant() -> None:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        assert process("list", "methods").returncode == 0
        seconds.append(time.perf_counter() - start)
    # 0.1 s on an idle machine, the promise is a median of 0.3 s; a heavy import would cost 1 s and more
    assert statistics.median(seconds) < 1.0


def test_json_of_list_through_a_closed_pipe() -> None:
    command = f"{sys.executable} -m curvebench list methods --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    done = process("completion", shell)
    assert done.returncode == 0
    assert "_CURVEBENCH_COMPLETE" in done.stdout
    assert f"{shell}_complete" in done.stdout
    assert "curvebench" in done.stdout


def test_bash_accepts_its_completion_script() -> None:
    script = process("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_completion_of_an_unknown_shell() -> None:
    done = process("completion", "tcsh")
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("curvebench compl", ["completion"]),
        ("curvebench do", ["doctor"]),
        ("curvebench list m", ["methods"]),
        ("curvebench list met", ["methods"]),
        ("curvebench show method adam", ["adam", "adamw"]),
        ("curvebench show tasks least", ["least-squares", "least-squares-ill", "least-squares-mild"]),
        ("curvebench show nothing a", []),
        ("curvebench list methods --j", ["--json"]),
        ("curvebench new m", ["method"]),
    ],
)
def test_completions(words: str, expected: list[str]) -> None:
    done = process(_CURVEBENCH_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    assert done.returncode == 0
    assert [line.partition(",")[2] for line in done.stdout.split()] == expected


def test_bare_command_shows_help() -> None:
    done = process()
    assert "Examples:" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_json() -> None:
    for arguments in (["list", "methods", "--json"], ["show", "method", "adam", "--json"]):
        done = process(*arguments)
        assert done.returncode == 0
        json.loads(done.stdout)
