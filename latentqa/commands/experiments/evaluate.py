"""`latentqa evaluate`: reading tasks on a trained decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentqa.terminal.option_groups import TargetOptions, takes_groups
from latentqa.terminal.options import DEFAULT_ROOT, REF_HELP, JsonOption, RootOption
from latentqa.terminal.printing import report

PROMPTS = "prompts"
"""The word for hidden system prompts among the tasks."""


@takes_groups
def evaluate(
    *,
    refs: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help=f"Trained decoders, one or more: {REF_HELP}"),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            "--task",
            metavar="PATH",
            help="File of relations (docs/tasks.md) or folder of them, or the word `prompts` for "
            "the run's own hidden system prompts; repeatable.",
        ),
    ],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Override a field of tasks or runtime, such as tasks.max_subjects=50.",
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows",
            metavar="FILE",
            help="Also write the numbers of all decoders to this Parquet file, one row each.",
        ),
    ] = None,
    target: TargetOptions,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Compare LIT, probe, nearest neighbour, Patchscope and SelfIE on reading tasks, as Markdown.

    Each file of relations is a task: read the object from the activation at the subject's last
    token. The task `prompts` identifies hidden system prompts from the user's message alone. The
    results are a cached artifact named REF_tasks. For several decoders, such as those of a sweep,
    --rows writes all numbers for a plot.
    """
    from evaluators.tasks.metrics import TasksMetrics
    from pipelines.reports.run.sections.tasks import task_tables
    from pipelines.running.task_run import run_tasks_of, write_result_rows

    documents, lines = [], []
    measured = {}
    relations = [path for path in task if path != PROMPTS]
    for ref in refs:
        found = run_tasks_of(
            ref,
            relations,
            root=root,
            prompts=PROMPTS in task,
            overrides=override or (),
            model=target.model,
            adapter=target.adapter,
        )
        metrics = TasksMetrics.model_validate({"tasks": found.metrics["tasks"]})
        where = found.steps[-1].artifact
        measured[ref] = where
        documents.append(
            {"name": str(found.name), "path": str(where.path), "tasks": found.metrics["tasks"]}
        )
        lines += [ref] if len(refs) > 1 else []
        lines += [task_tables(metrics), ""]
        if relations and "conversations" not in where.identity["inputs"]:
            lines.append(
                "The decoder's own rows are not here: subjects of the test may be among them."
            )
        lines.append(f"Named {found.name}: {where.path}")
    if rows is not None:
        write_result_rows(measured, rows)
    report(as_json, documents[0] if len(refs) == 1 else documents, *lines)
