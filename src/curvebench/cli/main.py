"""The entry point ``curvebench`` and the table of its verbs."""

from __future__ import annotations

import click

import curvebench
from curvebench.cli.lazy import LazyGroup

VERBS: dict[str, tuple[str, str]] = {
    "list": ("curvebench.cli.list", "List the methods, tasks, data sets, studies or papers."),
    "show": ("curvebench.cli.show", "Show everything on one card."),
    "bench": ("curvebench.cli.bench", "Run a study and print its table."),
    "run": ("curvebench.cli.run", "Run one method on one task."),
    "report": ("curvebench.cli.report", "Make tables and figures from stored records."),
    "reproduce": ("curvebench.cli.reproduce", "Print a paper's numbers beside the measured ones, with verdicts."),
    "compare": ("curvebench.cli.compare", "Say what differs between two sets of records, and if it is noise."),
    "records": ("curvebench.cli.records", "List what is stored."),
    "score": ("curvebench.cli.score", "Score methods over tasks, with intervals; also AlgoPerf's logs."),
    "tune": ("curvebench.cli.tune", "Tune hyperparameters over a stored pool."),
    "largest-batch": ("curvebench.cli.largest_batch", "Search for the largest batch that fits into memory."),
    "why-rerun": ("curvebench.cli.why_rerun", "Say which of a run's three keys differ, and in what."),
    "merge": ("curvebench.cli.merge", "Append the records of other folders."),
    "export": ("curvebench.cli.export", "Write records as one parquet, or for benchopt."),
    "import": ("curvebench.cli.importing", "Take in records of older schemas."),
    "data": ("curvebench.cli.data", "List, fetch and verify data sets."),
    "new": ("curvebench.cli.new", "Write the template of a method."),
    "check": ("curvebench.cli.check", "Test whether a method keeps the contract."),
    "targets": ("curvebench.cli.targets", "Set a task's target from tuned first-order baselines."),
    "certify": ("curvebench.cli.certify", "Measure what the suite states about itself."),
    "quality": ("curvebench.cli.quality", "Hold approximations of the curvature against the dense truth."),
    "regress": ("curvebench.cli.regress", "Say which kernels are slower than at another commit."),
    "doctor": ("curvebench.cli.doctor", "Say what is installed, what is missing and how to get it."),
    "completion": ("curvebench.cli.completion", "Print the shell completion script."),
}
"""Verb -> (module, one line for the list of verbs). A module offers its command as ``command`` or under the verb's
name. It is imported only when the verb is used, so that no verb makes another one slow or breaks it."""


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  curvebench list methods                          what can be compared
  curvebench show method adam                      one card, readable
  curvebench bench quick                           run a study, print its table
  curvebench run adam least-squares                one run
  curvebench new method mine                       start a method of your own
  curvebench doctor                                what is missing here

\b
curvebench VERB --help shows the examples of a verb.
""",
)
@click.version_option(curvebench.__version__, "--version", prog_name="curvebench")
def cli() -> None:
    """Benchmark optimisation methods that approximate curvature, in PyTorch and JAX."""


def main() -> None:
    """Run the command line; never returns.

    Exit codes: 0 done; 2 something the user can mend, with its sentence on stderr; 130 interrupted.
    """
    cli.main(prog_name="curvebench")
