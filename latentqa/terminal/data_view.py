"""Rows and statistics on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from core.records.table_files import DROPPED_FILE
from core.records.tool_use import call_texts
from core.text.terminal import plain_console, terminal_text
from core.text.wording import number, share

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
    if numbers["by_type"]:
        types = Table("type", "questions")
        for part, n in numbers["by_type"].items():
            types.add_row(terminal_text(part), str(n))
        console.print(_right(types))
    lengths = Table("characters", "rows", "mean", "median", "95 %", "longest")
    for part, n in numbers["characters"].items():
        cells = (n["count"], n["mean"], n["median"], n["p95"], n["max"])
        lengths.add_row(terminal_text(part), *map(str, cells))
    console.print(_right(lengths))
    for title in ("dropped", "flags"):
        if numbers[title]:
            table = Table(title, "rows")
            for reason, n in numbers[title].items():
                table.add_row(terminal_text(reason), str(n))
            console.print(_right(table))
    if numbers["obedience"]:
        obeyed = Table("instruction", "replies", "obeyed")
        for attribute, n in numbers["obedience"].items():
            obeyed.add_row(terminal_text(attribute), str(n["replies"]), str(n["obeyed"]))
        console.print(_right(obeyed))
    _print_checks(console, numbers)
    if numbers["unanswered"]:
        console.print(Text(f"{numbers['unanswered']} conversations without a question", "yellow"))
    _print_leaks(console, numbers)


def _print_parts(console: Console, numbers: Mapping[str, Any]) -> None:
    """Print the counts by kind, view, split and category."""
    for name in ("kind", "view", "split", "category"):
        table = Table(name, "controls", "conversations", "questions")
        parts = list(numbers[f"by_{name}"].items())
        if name == "category" and len(parts) > MOST_CATEGORIES:
            parts.sort(key=lambda item: -item[1]["examples"])
            table.caption = f"{len(parts) - MOST_CATEGORIES} smaller ones: --json"
            parts = parts[:MOST_CATEGORIES]
        for part, n in parts:
            counts = (n["controls"], n["examples"], n["questions"])
            table.add_row(Text(terminal_text(part)), *map(str, counts))
        console.print(_right(table))


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
        table = Table("from the question alone", "controls", "gold", "another's gold", "above")
        for name, value in quality.answerability.groups.items():
            cells = (value.own.n, value.own, value.other, value.above)
            table.add_row(Text(terminal_text(name)), *map(str, cells))
        table.caption = "token F1, with 95 % intervals over controls"
        console.print(_right(table))
    for name, part in quality.judged.items():
        table = Table(f"{part.own.n} {name}", "own control", "another control")
        for verdict, own, swapped in part.shares:
            table.add_row(terminal_text(verdict), share(own), share(swapped))
        agreed = part.own.agreement
        if agreed is not None and agreed.raw is not None:
            kappa = "" if agreed.kappa is None else f", kappa {agreed.kappa:.2f}"
            table.caption = f"two passes agree on {share(agreed.raw)}{kappa}"
        console.print(_right(table))
    if quality.control_effect:
        table = Table("control effect", "rows", "controls", "mean", "median", "not above zero")
        for name, n in quality.control_effect.items():
            numbers = (number(n.mean), number(n.median), share(n.below_zero))
            table.add_row(terminal_text(name), str(n.rows), str(n.controls), *numbers)
        table.caption = "nats by which a completion is likelier under its own control"
        console.print(_right(table))


def _print_checks(console: Console, numbers: Mapping[str, Any]) -> None:
    """Print what rules find about the rows, without an LLM."""
    many, shared = numbers["per_control"], numbers["shared"]
    if many:
        console.print(
            f"questions per control: {many['min']} to {many['max']}, median "
            f"{many['median']:g}; {shared['question']:.0%} of them, and "
            f"{shared['answer']:.0%} of the answers, occur with another control as well"
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


def _right(table: Table) -> Table:
    for column in table.columns[1:]:
        column.justify = "right"
    return table
