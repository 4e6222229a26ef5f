"""``curvebench largest-batch``: how many samples a step may have before memory runs out."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import click

from curvebench.errors import CurvebenchError
from curvebench.spec import FRAMEWORKS, SCALES

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@click.command(
    "largest-batch",
    epilog="""\b
Examples:
  curvebench largest-batch digits-cnn kfac --memory 512MiB
  curvebench largest-batch cifar10-resnet20 adahessian --device cuda
  curvebench largest-batch digits-cnn mfac --set window=64 --precision 0 --json

\b
Every size is tried in a process of its own: an evaluation and one period of steps. Sizes beyond the training set repeat
samples. Nothing is stored. Without --memory the limit is what the machine or the device has.
""",
)
@click.argument("task")
@click.argument("method")
@click.option("--memory", metavar="SIZE", help="Bytes allowed above the process before its data, e.g. 512MiB, 2GB.")
@click.option("--framework", type=click.Choice(FRAMEWORKS), help="By default torch where the method has it.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A hyperparameter; may be repeated.")
@click.option("--tuned", is_flag=True, help="Start from the tuned hyperparameters, not from the card's defaults.")
@click.option("--needs", multiple=True, metavar="QUERY", help="What a method without a card asks for, e.g. gradient.")
@click.option("--scale", type=click.Choice(SCALES), default="quick", show_default=True, help="Which scale of the task.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:<number>.")
@click.option("--most", type=click.IntRange(min=1), help="The largest size that is tried, by default 2^24.")
@click.option("--precision", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="0: to one sample.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def largest_batch(
    task: str,
    method: str,
    memory: str | None,
    framework: str | None,
    settings: tuple[str, ...],
    tuned: bool,
    needs: tuple[str, ...],
    scale: str,
    device: str,
    most: int | None,
    precision: float,
    as_json: bool,
) -> None:
    """Search for the largest batch at which METHOD's steps on TASK fit into memory."""
    from curvebench.cli.bench import import_from_here
    from curvebench.cli.run import in_order, specify
    from curvebench.procedures import largest_batch as search

    import_from_here()
    task, method = in_order(task, method)
    spec = specify(task, method, framework, 0, settings, tuned, needs, scale, (None, None, None), device)

    def told(trial: search.Trial) -> None:
        click.echo(f"batch {trial.batch}: {'fits' if trial.fits else 'does not fit'} ({trial.reason})", err=True)

    limit = None if memory is None else size(memory)
    found = search.largest_batch(spec, limit, most=most or search.LARGEST, precision=precision, told=told)
    if as_json:
        click.echo(json.dumps({"task": task, "method": method, "framework": spec.framework, **asdict(found)}, indent=2))
        return
    within = "the device's memory" if found.limit is None else f"{found.limit / 2**20:,.0f} MiB"
    click.echo(f"{task} / {method} / {spec.framework}: largest batch that fits into {within}: {found.batch}", nl=False)
    click.echo(" (nothing larger was tried)" if found.above is None else f" ({found.above} does not)")


def size(text: str) -> int:
    """Read ``512MiB``, ``2GB`` or ``1048576`` as bytes.

    Raises:
        CurvebenchError: it is none of these, or not positive.
    """
    match = SIZE.fullmatch(text.strip())
    value = round(float(match[1]) * UNITS[(match[2] or "").lower()]) if match else 0
    if value <= 0:
        raise CurvebenchError(f"--memory {text}: must be a size such as 512MiB, 2GB or a number of bytes")
    return value
