"""The card of a published data set says what is in it, who made it, under which licences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.records.table_files import tool_use_cell
from core.records.tables import SPLITS, Conversation, Dropped, Question
from core.text.text_tables import markdown
from generators.quality.describe import describe_dataset
from generators.quality.findings import QualityFindings
from generators.quality.tables import answerability_table, verdict_table

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_FIELDS = """
| field | what |
|---|---|
| `example_id`, `control_id`, `group_id` | digests; a group is in one split |
| `kind`, `category`, `label`, `view`, `split` | what the control is, and what the target sees |
| `messages` | `role`, `content`, `segment` (template, control, stimulus, completion) |
| `completion_origin` | who wrote the completion; null without one |
| `questions` | `question`, `answer`, `type`, `flags`, `provenance` |
| `flags` | remarks that did not drop the row |
| `provenance` | JSON text: file and place, or model, prompt and requests, or the facts drawn |
"""
_TOOL_FIELD = """
| `tool_use` | JSON text for each message that calls or answers a tool; null without any |"""


def dataset_card(
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    dropped: Sequence[Dropped],
    *,
    name: str,
    licence: str | None,
    source_licences: Mapping[str, str],
    quality: QualityFindings | None,
) -> str:
    """Write the README.md of a data set: front matter for `datasets.load_dataset`, then tables.

    Args:
        conversations: its rows.
        questions: those about them.
        dropped: rows that were not kept.
        name: its title.
        licence: of the whole; None where nobody has said.
        source_licences: licence by source, as `count_sources` names them.
        quality: what the step `quality` measured; None where it did not run.
    """
    from huggingface_hub import DatasetCardData

    numbers = describe_dataset(conversations, questions, dropped)
    calls_tools = any(tool_use_cell(row.messages) for row in conversations)
    present = [split for split in SPLITS if split in numbers["by_split"]]
    front = DatasetCardData(
        license=licence,
        pretty_name=name,
        size_categories=[_size(len(conversations))],
        tags=["latentqa", "interpretability", "activations"],
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"data/{split}-*.parquet"} for split in present
                ],
            }
        ],
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {name}",
        "Conversations that set a language model's state, and questions about that state with gold "
        "answers, for reading activations in natural language (LatentQA, arXiv 2412.08686). One "
        "row a conversation; no group of labels or control texts is in two splits.",
        "## Fields" + _FIELDS.rstrip() + (_TOOL_FIELD if calls_tools else ""),
        "## Counts",
        *(_counts(part, numbers[f"by_{part}"]) for part in ("split", "kind", "view")),
        _table(("type of question", "questions"), numbers["by_type"].items()),
        "## Sources",
        _table(
            ("source", "rows", "licence"),
            [
                (source, rows, source_licences.get(source, "not stated"))
                for source, rows in count_sources(conversations, questions).items()
            ],
        ),
        _prompts(conversations, questions),
        "## Quality",
        _checks(numbers),
        *(_measured(quality) if quality else ()),
        _table(("dropped because of", "rows"), numbers["dropped"].items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def count_sources(
    conversations: Sequence[Conversation], questions: Sequence[Question]
) -> dict[str, int]:
    """Count rows by source: `import FILE`, `model NAME`, `code (KIND)`."""
    kinds = {row.example_id: row.kind for row in conversations}
    found = Counter(_source(row.provenance, row.kind) for row in conversations)
    found += Counter(_source(one.provenance, kinds[one.example_id]) for one in questions)
    return dict(sorted(found.items()))


def _source(provenance: Mapping[str, Any], kind: str) -> str:
    if "file" in provenance:
        return f"import {provenance['file']}"
    model = provenance.get("generator")
    return f"code ({kind})" if model in ("drawn", None) else f"model {model}"


def _prompts(conversations: Sequence[Conversation], questions: Sequence[Question]) -> str:
    """Tabulate the digests of the prompts that rows were written with."""
    prompts: dict[str, set[str]] = defaultdict(set)
    kinds = {row.example_id: row.kind for row in conversations}
    for row in conversations:
        if prompt := row.provenance.get("prompt"):
            prompts[f"control of {row.kind}"].add(prompt)
    for one in questions:
        if prompt := one.provenance.get("prompt"):
            prompts[f"{one.type} of {kinds[one.example_id]}"].add(prompt)
    rows = [(name, f"`{digest[:16]}`") for name in sorted(prompts) for digest in prompts[name]]
    return _table(("written with a prompt", "sha256"), sorted(rows))


def _counts(name: str, parts: Mapping[str, Mapping[str, int]]) -> str:
    rows = [(part, n["controls"], n["examples"], n["questions"]) for part, n in parts.items()]
    return _table((name, "controls", "conversations", "questions"), rows)


def _checks(numbers: Mapping[str, Any]) -> str:
    flags, leaks = numbers["checks"]["flags"], sum(map(len, numbers["leaks"].values()))
    shared = numbers["shared"]
    said = (
        f"{leaks} groups, labels or controls stand in two splits. Word for word, "
        f"{shared['question']:.0%} of the questions and {shared['answer']:.0%} of the answers "
        "stand with another control too."
    )
    rows = [(flag, n["rows"], f"{n['share']:.1%}") for flag, n in flags.items()]
    return f"{said}\n\n{_table(('flag', 'rows', 'share'), rows)}".rstrip()


def _measured(quality: QualityFindings) -> list[str]:
    found: list[str] = []
    if quality.answerability is not None:
        found += [
            "Answered by a model from the question alone (token F1 with gold, with the gold of "
            "another control, and what is above it):",
            answerability_table(quality.answerability).to_markdown(),
        ]
    for name, part in quality.judged.items():
        agreed = "" if part.own.agreement is None else f", which agree on {part.own.agreement}"
        found += [
            f"{part.own.n} {name} judged by rubric `{part.own.digest[:16]}`, in two passes"
            f"{agreed}:",
            verdict_table(part).to_markdown(),
        ]
    return found


def _size(rows: int) -> str:
    return next((name for most, name in _SIZES if rows < most), "1M<n<10M")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a Markdown table; empty without rows."""
    body = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    return markdown(head, body) if body else ""
