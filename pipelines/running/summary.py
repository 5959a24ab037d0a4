"""The last lines of a run: its results, where the report is, and what to type next."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from core.text.wording import ABSENT, interval, program
from pipelines.running.remarks import nothing_judged
from pipelines.running.results import RunResult
from pipelines.steps.shared.metrics import dropped_rows

_HIDDEN = (
    "The decoder reads what is hidden if the intervals of the hidden gain and `below rivals` lie "
    "above zero; the grounded gain only checks the instrument."
)
_NOTHING_HIDDEN = (
    "No hidden gain was measured, so this says nothing about what is hidden; the grounded gain "
    "checks the instrument."
)


def summary(result: RunResult, root_option: str = "") -> str:
    """Return the last lines of a run, for a terminal.

    Args:
        result: the finished run.
        root_option: ` --root DIR`, where the commands to type next need it.
    """
    lines = []
    by_step = {run.step.name: run for run in result.steps}
    evaluate = by_step.get("evaluate")
    if evaluate is not None and nothing_judged(evaluate.artifact) is None:
        rows = reading_rows(result.metrics["reading"])
        lines.append("Answer loss in nats per token, 95 % intervals over controls:")
        lines.append(_table(rows))
        hidden = any(row["hidden gain"] != ABSENT for row in rows)
        lines.append(_HIDDEN if hidden else _NOTHING_HIDDEN)
        if any(_without_interval(row["grounded gain"]) for row in rows):
            lines.append("With fewer controls than evaluate.min_controls there is no interval.")
    for name, run in by_step.items():
        if dropped := dropped_rows(name, run.artifact.record["counts"]):
            lines.append(f"{name}: {dropped}")
    if result.report is not None:
        lines.append(f"Report:  {result.report}")
    if not result.name.whole:
        done = result.steps[-1]
        lines.append(f"Stopped after {done.step.name}: {done.artifact.path}")
        lines.append(f"Named {result.name}; `latentqa untag {result.name}` removes the name.")
        return "\n".join(lines)
    name, number, own = result.name.name, result.name.number, program()
    lines.append("Next:")
    lines.append(
        f'  {own} ask {name}{root_option} --prompt "You are a pirate." '
        '--question "Who speaks here?"'
    )
    lines.append(f"  {own} data show {name}{root_option}")
    if number is not None and number > 1:
        lines.append(f"  {own} diff {name}:{number - 1} {name}:{number}{root_option}")
    return "\n".join(lines)


def reading_rows(reading: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a row of text for each split and view.

    Args:
        reading: {split: {view: metrics}}, losses in nats per token.
    """
    return [
        {
            "split": split,
            "view": view,
            "right": _leaf(found["answer_loss"]["right"], short=True),
            "untrained": _leaf(found["untrained"]["right"], short=True),
            "hidden gain": _leaf(found.get("hidden_gain")),
            "below rivals": _leaf(found.get("below_rivals")),
            "grounded gain": _leaf(found["grounded_gain"]),
            "controls": str(found["answer_loss"]["right"]["n"]),
        }
        for split, views in reading.items()
        for view, found in views.items()
    ]


def _table(rows: list[dict[str, str]]) -> str:
    table = Table(box=None, pad_edge=False, header_style="")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("split", "view") else "right")
    for row in rows:
        table.add_row(*row.values())
    # a fixed width: a pipe has none, and a narrow terminal would break the columns
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _without_interval(text: str) -> bool:
    return text != ABSENT and "[" not in text


def _leaf(leaf: Mapping[str, Any] | None, *, short: bool = False) -> str:
    """Format an estimate, with its interval unless it is to be short."""
    if leaf is None:
        return ABSENT
    ends = (None, None) if short else (leaf.get("low"), leaf.get("high"))
    return interval(leaf["estimate"], *ends)
