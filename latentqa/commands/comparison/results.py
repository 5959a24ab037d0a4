"""`latentqa results`: the numbers of an evaluated run as Markdown tables."""

from __future__ import annotations

from latentqa.api import open_refs
from latentqa.terminal.options import DEFAULT_ROOT, JsonOption, RefArgument, RootOption
from latentqa.terminal.printing import report


def results(ref: RefArgument, root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """Print losses and gains by split and view, robustness, tasks and control, as Markdown.

    Tables by category, question type and question show which attributes of a control are read.
    Intervals are 95 % bootstrap intervals over controls.
    """
    from pipelines.reports.run.results import read_results

    found = read_results(open_refs(root), ref)
    report(as_json, found.document, found.text)
