"""``curvebench quality``: how good each approximation of the curvature is, beside how fast its method is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from curvebench import cards
from curvebench.errors import CurvebenchError

QUALITY = Path("results") / "quality"
RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench quality                                 measure all oracle models: about ten minutes on one core
  curvebench quality --task digits-mlp --seeds 2
  curvebench quality --task deep-linear --approximation kfac-type-2 --damping 1e-3 --damping 1e-1
  curvebench quality --stored                        print what is stored; measures nothing, needs no torch
  curvebench quality --stored --format csv > quality.csv
  curvebench quality --stored --json | jq '.[].tables[0].rows[] | [.title, .eff]'

\b
Each approximation is built by the shipped method that uses it, at the first point, after a tenth and at the end of a
full-batch L-BFGS run, and compared with the dense Gauss-Newton matrix and Hessian:
  error                |C - F| / |F|                       trace ratio   tr C / tr F
  inverse-vector error |x - x*| / |x*| with x = (C + lam I)^-1 g, lam = damping times tr(GGN)
  eff                  share of the best decrease of the quadratic model that is reachable along x: 1 is Newton's
  scale*               the best step length along x: 0.01 means that x is 100 times too long
Steps and seconds to the target come from stored records of the same task and method: `no record` where there is none,
`no method` where no shipped method uses the approximation. results/quality/TASK.json holds every cell.
"""
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--approximation", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--seeds", default=5, show_default=True, metavar="N", help="Seed blocks.")
@click.option("--damping", "dampings", multiple=True, type=float, default=(1e-3,), show_default=True, metavar="X",
              help="Multiple of the Gauss-Newton matrix's trace; may be repeated.")  # fmt: skip
@click.option("--steps", default=150, show_default=True, metavar="N", help="Of the L-BFGS run.")
@click.option("--truth", type=click.Choice(["ggn", "hessian", "both"]), default="ggn", show_default=True, help="Print.")
@click.option("--stored", is_flag=True, help="Print what is stored and measure nothing.")
@click.option("--records", "folders", multiple=True, type=click.Path(path_type=Path, file_okay=False),
              help="Where end-task runs are.  [default: results/records and the reference records]")  # fmt: skip
@click.option("--out", default=QUALITY, show_default=True, type=click.Path(path_type=Path), help="The results.")
@click.option("--format", "form", type=click.Choice(["terminal", "markdown", "csv"]), default="terminal", help="How.")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Draw the heat map of eff: .png, .svg or .pdf.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quality(
    tasks: tuple[str, ...], names: tuple[str, ...], seeds: int, dampings: tuple[float, ...], steps: int, truth: str,
    stored: bool, folders: tuple[Path, ...], out: Path, form: str, figure: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure approximations of the curvature against the dense truth, beside end-task speed."""
    from curvebench.procedures.reproduce import gather
    from curvebench.report import quality as report
    from curvebench.store.quality import read_quality

    if not stored:
        _measure(tasks, names, seeds, dampings, steps, out)
    contents = [c for c in read_quality(out) if not tasks or c["task"] in tasks]
    if not contents:
        raise CurvebenchError(f"nothing measured in {out}: run `curvebench quality` first, or name --out DIR")
    records, problems = gather(folders or (cards.root() / RECORDS / "reference", RECORDS))
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    if as_json:
        click.echo(json.dumps([report.to_json(c, records) for c in contents], indent=2, allow_nan=False))
    elif form == "csv":
        first, *rest = [report.csv(c, records) for c in contents]
        click.echo(first + "".join(text.split("\n", 1)[1] for text in rest), nl=False)
    else:
        truths = tuple(report.TRUTHS) if truth == "both" else (truth,)
        click.echo("\n".join(report.render(c, records, form, truths) for c in contents), nl=False)
    if figure is not None:
        _draw(contents, figure, "ggn" if truth == "both" else truth)


def _measure(
    tasks: tuple[str, ...], names: tuple[str, ...], seeds: int, dampings: tuple[float, ...], steps: int, out: Path
) -> None:
    import torch

    from curvebench.procedures.quality import TASKS, measure
    from curvebench.store.quality import write_quality

    torch.set_num_threads(1)
    chosen = tasks or TASKS
    with click.progressbar(length=len(chosen) * seeds * 3, label="checkpoints", file=sys.stderr,
                           show_pos=True) as bar:  # fmt: skip
        for task in chosen:
            content = measure(
                task, seeds=seeds, dampings=dampings, steps=steps, names=names, tick=lambda: bar.update(1)
            )
            write_quality(out, content)


def _draw(contents: list[dict[str, object]], file: Path, truth: str) -> None:
    from curvebench.report.build import write
    from curvebench.report.curves import picture
    from curvebench.report.quality import heat_map

    form = file.suffix[1:]
    if form not in ("png", "svg", "pdf"):
        raise CurvebenchError(f"--figure {file}: must end in .png, .svg or .pdf")
    click.echo(f"written: {write(file, picture(heat_map(contents, truth), form))}", err=True)
