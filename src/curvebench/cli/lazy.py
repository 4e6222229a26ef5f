"""A click group that imports a verb when it is used, and turns every expected failure into a sentence on stderr."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from curvebench.errors import CurvebenchError, MissingPackageError, StudyInterrupted, did_you_mean

EXTRAS = {
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "optax": "jax",
    "matplotlib": "report",
    "pandas": "report",
    "pyarrow": "parquet",
    "scipy": "report",
    "seaborn": "report",
    "sklearn": "data",
}
"""Top-level module -> the extra of curvebench that brings it."""

USER_ERROR, INTERRUPTED = 2, 130


class LazyGroup(click.Group):
    """Verbs from a table ``verb -> (module, help)``; see :data:`curvebench.cli.main.VERBS`."""

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs whose module is there, in the table's order, which is the order of their use."""
        return [verb for verb, (module, _) in self.verbs.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module; None if there is no such verb."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(self.verbs[cmd_name][0])
        command = getattr(module, "command", None) or getattr(module, cmd_name.replace("-", "_"), None)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__} must define a click command named 'command' or {cmd_name!r}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, and suggests the nearest verbs."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and name not in self.list_commands(ctx):
            ctx.fail(f"unknown verb {name!r}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from the table, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, self.verbs[verb][1]) for verb in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs from the table, options as click does."""
        verbs = [verb for verb in self.list_commands(ctx) if verb.startswith(incomplete)]
        # Command's own, not Group's: that one imports every verb
        return [CompletionItem(verb, help=self.verbs[verb][1]) for verb in verbs] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; every expected failure is a sentence on stderr and an exit code."""
        if os.environ.get("NO_COLOR"):
            extra.setdefault("color", False)
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        color = extra.get("color")
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(USER_ERROR)
        except StudyInterrupted as error:
            _fail(str(error), INTERRUPTED, color, prefix="")
        except CurvebenchError as error:
            _fail(str(error), USER_ERROR, color)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            _fail(str(MissingPackageError(package, EXTRAS[package], "this")), USER_ERROR, color)
        except click.Abort:  # click's name for KeyboardInterrupt and for the end of input at a prompt
            _fail("interrupted", INTERRUPTED, color, prefix="")
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int, color: bool | None, prefix: str = "Error: ") -> NoReturn:
    click.secho(prefix, fg="red", bold=True, err=True, nl=False, color=color)
    click.echo(message, err=True, color=color)
    sys.exit(code)
