"""``curvebench completion``: the script that makes a shell complete verbs, options and names of cards."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog="""\b
Examples:
  eval "$(curvebench completion bash)"                                        in ~/.bashrc
  eval "$(curvebench completion zsh)"                                         in ~/.zshrc
  curvebench completion fish > ~/.config/fish/completions/curvebench.fish     once
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish."""
    made = get_completion_class(shell)
    assert made is not None, "click knows the three shells"
    root = ctx.find_root().command
    click.echo(made(root, {}, "curvebench", "_CURVEBENCH_COMPLETE").source())
