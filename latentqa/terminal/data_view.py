"""Rows and statistics on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from core.records.result_table import ResultTable
from core.records.table_files import DROPPED_FILE
from core.records.tool_use import call_texts
from core.text.terminal import plain_console, terminal_text
from core.text.wording import share
from generators.quality.tables import answerability_table, effect_table, verdict_table

if TYPE_CHECKING:
    from rich.console import Console

    from generators.quality.findings import QualityFindings

COLOURS = {"template": "dim", "control": "magenta", "stimulus": "cyan", "completion": "green"}
"""Style of a message by its segment."""
MOST_CATEGORIES = 20
"""Categories that the terminal shows; the published files have more than a hundred."""


def print_import(out: Path, conversations: Mapping[str, Any], questions: Mapping[str, Any]) -> None:
    """Print what an import kept, and what it dropped and why."""
    console = plain_console()

    def line(text: str, style: str = "") -> None:
        console.print(Text(terminal_text(text), style), soft_wrap=True)

    line(
        f"{out}: {conversations['controls']} controls, {conversations['examples']} conversations, "
        f"{questions['questions']} questions of {questions['labels']} labels",
        "bold",
    )
    for name in ("view", "kind"):
        line(
            f"  {name:<6} " + ", ".join(f"{k} {n}" for k, n in conversations[f"by_{name}"].items())
        )
    splits = conversations["by_split"].items()
    line(
        "  split  "
        + ", ".join(f"{k} {n['examples']} of {n['controls']} controls" for k, n in splits)
    )
    for what, counts in (("conversations", conversations), ("questions", questions)):
        for reason, n in counts["dropped"].items():
            line(f"  dropped {n} × {reason}, listed in {out / what / DROPPED_FILE}", "yellow")


def print_rows(records: Sequence[Mapping[str, Any]], total: int) -> None:
    """Print each row under a rule, with its messages, questions and flags."""
    console = plain_console()
    for record in records:
        console.rule(
            Text(
                terminal_text(
                    f"{record['label']} · {record['view']} · {record['split']} · "
                    f"{record['example_id']}"
                )
            ),
            align="left",
        )
        for message in record["messages"]:
            head = Text(message["role"], style="bold")
            if "name" in message:
                head.append(f" {terminal_text(message['name'])}")
            console.print(head.append(f" · {message['segment']}", style="not bold dim"))
            calls = [f"calls {call}" for call in call_texts(message.get("tool_calls", []))]
            lines = "\n".join(([message["content"]] if message["content"] else []) + calls)
            text = Text(terminal_text(lines), style=COLOURS[message["segment"]])
            console.print(Padding(text, (0, 0, 0, 2)))
        if record["flags"]:
            console.print(
                Text(terminal_text(f"flags: {', '.join(record['flags'])}"), style="yellow")
            )
        for question in record["questions"]:
            _print_question(console, question)
        console.print()
    console.print(Text(f"{len(records)} of {total} rows", style="dim"))


def print_stats(numbers: Mapping[str, Any]) -> None:
    """Print the statistics of a data set as tables."""
    console = plain_console()
    console.print(
        f"{numbers['controls']} controls, {numbers['examples']} conversations, "
        f"{numbers['questions']} questions ({numbers['distinct_questions']} distinct, "
        f"{numbers['distinct_answers']} distinct answers), {numbers['groups']} groups"
    )
    _print_parts(console, numbers)
    for head, rows in (
        (("type", "questions"), numbers["by_type"].items()),
        (
            ("characters", "rows", "mean", "median", "95 %", "longest"),
            ((part, *map(str, n.values())) for part, n in numbers["characters"].items()),
        ),
        (("dropped", "rows"), numbers["dropped"].items()),
        (("flags", "rows"), numbers["flags"].items()),
        (
            ("instruction", "replies", "obeyed"),
            ((name, n["replies"], n["obeyed"]) for name, n in numbers["obedience"].items()),
        ),
    ):
        _print_table(console, ResultTable(head, tuple(rows)))
    _print_checks(console, numbers)
    if numbers["unanswered"]:
        console.print(Text(f"{numbers['unanswered']} conversations without a question", "yellow"))
    _print_leaks(console, numbers)


def _print_parts(console: Console, numbers: Mapping[str, Any]) -> None:
    """Print the counts by kind, view, split and category."""
    for name in ("kind", "view", "split", "category"):
        parts = list(numbers[f"by_{name}"].items())
        caption = None
        if name == "category" and len(parts) > MOST_CATEGORIES:
            parts.sort(key=lambda item: -item[1]["examples"])
            caption = f"{len(parts) - MOST_CATEGORIES} smaller ones: --json"
            parts = parts[:MOST_CATEGORIES]
        table = ResultTable(
            head=(name, "controls", "conversations", "questions"),
            rows=tuple((part, n["controls"], n["examples"], n["questions"]) for part, n in parts),
        )
        _print_table(console, table, caption)


def _print_leaks(console: Console, numbers: Mapping[str, Any]) -> None:
    """Print what stands in more than one split, or that nothing does."""
    leaks = {name: found for name, found in numbers["leaks"].items() if found}
    for name, found in leaks.items():
        shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        console.print(
            Text(f"{len(found)} {name} in more than one split: {terminal_text(shown)}", "red")
        )
    if not leaks:
        console.print("no group, label or control is in two splits")


def print_measured(quality: QualityFindings) -> None:
    """Print what an LLM found in the step `quality`, and the control effects."""
    console = plain_console()
    if quality.answerability is not None:
        caption = "token F1 from the question alone, with 95 % intervals over controls"
        _print_table(console, answerability_table(quality.answerability), caption)
    for name, part in quality.judged.items():
        agreed = part.own.agreement
        passes = "" if agreed is None else f"; two passes agree on {agreed}"
        _print_table(console, verdict_table(part), f"{part.own.n} {name}{passes}")
    if quality.control_effect:
        caption = "nats by which a completion is likelier under its own control"
        _print_table(console, effect_table(quality.control_effect), caption)


def _print_checks(console: Console, numbers: Mapping[str, Any]) -> None:
    """Print what rules find about the rows, without an LLM."""
    many, shared = numbers["per_control"], numbers["shared"]
    if many:
        console.print(
            f"questions per control: {many['min']} to {many['max']}, median "
            f"{many['median']:g}; {share(shared['question'])} of them, and "
            f"{share(shared['answer'])} of the answers, occur with another control as well"
        )
    checks = numbers["checks"]
    if checks["flags"]:
        table = Table("check", "rows", "share", "for example")
        for flag, n in checks["flags"].items():
            example = Text(
                terminal_text(checks["examples"][flag]), overflow="ellipsis", no_wrap=True
            )
            table.add_row(terminal_text(flag), str(n["rows"]), f"{n['share']:.1%}", example)
        for column in table.columns[1:3]:
            column.justify = "right"
        console.print(table)
    else:
        console.print("no row is flagged by a rule")
    if checks["compared"] < numbers["controls"]:
        compared, all_ = checks["compared"], numbers["controls"]
        console.print(Text(f"near-duplicates: {compared} of {all_} controls compared", "dim"))


def _print_question(console: Console, question: Mapping[str, Any]) -> None:
    kind = f" ({question['type']})" if question["type"] else ""
    flags = f" [{', '.join(question['flags'])}]" if question["flags"] else ""
    asked = Text("Q ", style="bold").append(terminal_text(question["question"]), style="not bold")
    asked.append(terminal_text(kind), style="not bold dim")
    asked.append(terminal_text(flags), style="not bold yellow")
    answer = Text("A ", style="bold").append(terminal_text(question["answer"]), style="not bold")
    console.print(Padding(asked, (0, 0, 0, 2)))
    console.print(Padding(answer, (0, 0, 0, 2)))


def _print_table(console: Console, found: ResultTable, caption: str | None = None) -> None:
    """Print a table, unless it has no row."""
    table = Table(caption=caption)
    for place, name in enumerate(found.head):
        table.add_column(name, justify="left" if place < found.names else "right")
    for row in found.texts():
        table.add_row(*(Text(terminal_text(text)) for text in row))
    if found.rows:
        console.print(table)
