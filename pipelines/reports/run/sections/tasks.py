"""Reading tasks as a section of the report, and as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from core.records.result_table import ResultTable
from core.text.wording import count, sort_known
from evaluators.measure.result_files import read_rows
from evaluators.tasks.config import PredictorName
from evaluators.tasks.metrics import MEAN, TaskMetrics, TasksMetrics

_OWN = "lit"
_ORDER: tuple[str, ...] = get_args(PredictorName)
_EXAMPLES = 5
"""Best, and worst, answers about hidden prompts that are shown."""
_NAMED, _CLAIMS = "contained", "chosen"
"""Headlines of tasks that ask for a name, and of those that are choices alone."""
_TABLES: tuple[tuple[str, str, str | None], ...] = (
    ("Share of answers that name the object", "contained", _NAMED),
    ("Share of answers that are exactly the object", "exact", _NAMED),
    ("Right choices among options", "chosen", None),
    ("Share of written answers with the right yes or no", "contained", _CLAIMS),
    ("Word overlap of the answer with the hidden prompt (F1)", "similarity", None),
    ("Share of answers that an LLM judges equivalent to the hidden prompt", "judged", None),
    ("LIT minus each method, paired", "lead", None),
)
"""Each table's title, its measure, and the headline of its tasks; None for any."""


@dataclass(frozen=True, slots=True)
class TaskPage:
    """What the page shows of reading tasks.

    Attributes:
        predictors: methods in the order of their columns.
        measured: tasks by name.
        why_not: why a task was not measured, by name.
        counts: subjects of each task, and rows that were dropped, in words.
    """

    predictors: list[str]
    measured: dict[str, TaskMetrics]
    why_not: dict[str, str]
    counts: dict[str, str]

    @property
    def fewer_tries(self) -> list[str]:
        """Tasks in which less was tried of another method that reads activations than of LIT."""
        return [
            name
            for name, task in self.measured.items()
            if (own := task.predictors.get(_OWN)) is not None
            and any(
                method.sees == "activations" and 0 < method.tried < own.tried
                for method in task.predictors.values()
            )
        ]

    @property
    def leads(self) -> list[str]:
        """In how many tasks LIT is above each method, and below, by the interval of its lead."""
        found = []
        for method in self.predictors:
            leads = [
                (name, lead)
                for name, task in self.measured.items()
                if name != MEAN and (lead := task.cell(method, "lead")) is not None
            ]
            above = [name for name, lead in leads if lead.above_zero]
            below = [name for name, lead in leads if lead.excludes_zero and not lead.above_zero]
            if leads:
                trails = f"below it in {len(below)}" + (f" ({', '.join(below)})" if below else "")
                found.append(f"{method}: LIT is above it in {len(above)} of {len(leads)}, {trails}")
        return found

    @property
    def in_short(self) -> list[tuple[str, str]]:
        """The main comparison in words: on the mean of relations, else on each task."""
        names = [MEAN] if MEAN in self.measured else list(self.measured)
        compared = [(name, _compare_in_short(self.measured[name])) for name in names]
        return [(name, sentence) for name, sentence in compared if sentence]

    @property
    def tables(self) -> list[tuple[str, ResultTable]]:
        """The tables that have a number, with titles, in the order in which they are shown."""
        found = []
        for title, measure, headline in _TABLES:
            tasks = {
                name: task
                for name, task in self.measured.items()
                if headline in (None, task.headline)
                and any(
                    cell.measured
                    for one in self.predictors
                    if (cell := task.cell(one, measure)) is not None
                )
            }
            if tasks:
                found.append((title, self._table(measure, tasks)))
        return found

    def _table(self, measure: str, tasks: Mapping[str, TaskMetrics]) -> ResultTable:
        """Collect a measure of each method that has it on any of some tasks."""
        methods = [
            one
            for one in self.predictors
            if any(task.cell(one, measure) is not None for task in tasks.values())
        ]
        chosen = measure == "chosen"
        return ResultTable(
            head=(
                *("task", "n", *(["chance"] if chosen else [])),
                *(name.replace("_", " ") for name in methods),
            ),
            rows=tuple(
                (
                    *(name, task.choices if chosen else task.n),
                    *([f"{task.chance:g}"] if chosen else []),
                    *(task.cell(one, measure) for one in methods),
                )
                for name, task in tasks.items()
            ),
        )


def _compare_in_short(task: TaskMetrics) -> str:
    """Compare LIT with the best other method and with no activations; empty without LIT."""
    found = {name: task.cell(name, task.headline) for name in task.predictors}
    shares = {name: one for name, one in found.items() if one is not None and one.measured}
    if _OWN not in shares:
        return ""
    named = task.headline == _NAMED
    does, cases = ("names the object", task.n) if named else ("chooses right", task.choices)
    parts = [f"LIT {does} in {shares[_OWN]} of {count(cases)} cases"]
    rivals = [
        name for name in shares if name != _OWN and task.predictors[name].sees == "activations"
    ]
    if rivals:
        best = max(rivals, key=lambda name: shares[name].estimate or 0.0)
        parts.append(f"{best}, the best other method that reads activations, in {shares[best]}")
    if "none" in shares:
        parts.append(f"the decoder without activations in {shares['none']}")
    return f"{'; '.join(parts)}."


def task_page(metrics: TasksMetrics) -> TaskPage:
    """Sort what was measured for a page."""
    in_order = sorted(metrics.tasks, key=lambda name: name == MEAN)  # behind what it is of
    measured = {name: metrics.tasks[name] for name in in_order if metrics.tasks[name].predictors}
    return TaskPage(
        predictors=sort_known(
            (name for one in measured.values() for name in one.predictors), _ORDER
        ),
        measured=measured,
        why_not={
            name: task.why_not for name, task in metrics.tasks.items() if task.why_not is not None
        },
        counts={
            name: ", ".join(f"{rule.replace('_', ' ')} {n}" for rule, n in task.counts.items())
            for name, task in metrics.tasks.items()
            if task.counts
        },
    )


def task_tables(metrics: TasksMetrics) -> str:
    """Write the tasks as Markdown, with 95 % intervals: named objects, choices, LIT's lead."""
    page = task_page(metrics)
    parts = []
    for title, table in page.tables:
        parts += [f"{title}:", table.to_markdown()]
    notes = [f"{name}: not measurable; {why}." for name, why in page.why_not.items()]
    if page.fewer_tries:
        notes.append(
            f"{', '.join(page.fewer_tries)}: fewer settings were tried for some "
            "method than for LIT."
        )
    notes += [f"{lead}." for lead in page.leads]
    return "\n\n".join([*parts, *notes])


def read_examples(path: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Read what LIT wrote about hidden prompts, by task: the best answers, then the worst.

    Args:
        path: of task_answers.parquet; None for none.

    Raises:
        DamagedError: the file cannot be read.
    """
    of_task: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(path):
        if row["predictor"] == _OWN and row["similarity"] is not None:
            of_task.setdefault(row["task"], []).append(row)
    for name, rows in of_task.items():
        rows.sort(key=lambda row: -row["similarity"])
        if len(rows) > 2 * _EXAMPLES:
            of_task[name] = [*rows[:_EXAMPLES], *rows[-_EXAMPLES:]]
    return of_task
