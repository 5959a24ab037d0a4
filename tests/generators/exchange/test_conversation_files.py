"""Conversations of one's own: what is kept, and what is said of the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conversation_lines import MESSAGES, QUESTIONS, line, write
from typer.testing import CliRunner

from core.errors import DataError
from core.records.table_files import read_conversations, read_dropped, read_questions
from generators.exchange.config import ImportConfig
from generators.exchange.conversation_files import (
    import_own_conversations,
    import_own_questions,
    messages_digest,
    read_own_rows,
)
from generators.exchange.row_entries import own_digests
from latentqa.commands.stored.data import app
from pipelines.running.request import RunRequest

DOCS = (Path(__file__).parents[3] / "docs/data.md").read_text()


def turn(role: str, segment: str, content: str = "Hm.") -> dict[str, str]:
    return {"role": role, "content": content, "segment": segment}


TOOLS = [
    turn("system", "control", "You are terse."),
    turn("user", "stimulus", "Weather in Oslo?"),
    turn("assistant", "stimulus", '{"name": "weather", "arguments": {"city": "Oslo"}}'),
    turn("tool", "stimulus", '{"rain": true}'),
    turn("assistant", "stimulus", "Rain."),
    turn("user", "stimulus", "And tomorrow?"),
]


@pytest.mark.parametrize(
    ("messages", "view"),
    [
        (MESSAGES[:1], "control"),
        (MESSAGES, "stimulus"),
        ([*MESSAGES, turn("assistant", "completion")], "stimulus_completion"),
        (TOOLS, "system"),
        ([*TOOLS, turn("assistant", "completion")], "stimulus_completion"),
        ([turn("system", "template"), *MESSAGES], "stimulus"),
    ],
)
def test_the_view_follows_from_the_segments(tmp_path: Path, messages: Any, view: str) -> None:
    ((own,), dropped) = read_own_rows(write(tmp_path / "a.jsonl", line(messages)))
    assert dropped == []
    assert own.row.view == view
    found = [{"role": m.role, "content": m.content, "segment": m.segment} for m in own.row.messages]
    assert found == messages


def test_both_tables_come_of_a_folder(tmp_path: Path) -> None:
    write(
        tmp_path / "in.jsonl",
        line(label="ferry", kind="persona", category="sea", note={"by": "me"}),
        "",
        line(TOOLS, [["Is it terse?", "Yes."], {"question": "Where?", "answer": "Oslo.",
                                                 "type": "extraction"}]),
    )  # fmt: skip
    counts = import_own_conversations(tmp_path, tmp_path / "c", config=ImportConfig())
    asked = import_own_questions(tmp_path, tmp_path / "c", tmp_path / "q")
    assert (counts["controls"], counts["by_kind"]) == (2, {"persona": 1, "own": 1})
    assert asked == {"questions": 3, "labels": 2, "dropped": {}}
    first, second = read_conversations(tmp_path / "c/conversations.parquet")
    assert (first.label, first.category, first.source) == ("ferry", "sea", "import")
    assert first.provenance == {"file": "in.jsonl", "position": 1, "extra": {"note": {"by": "me"}}}
    assert second.label == f"own-{second.control_id}"
    assert second.control == "You are terse."
    questions = read_questions(tmp_path / "q/questions.parquet")
    assert [(q.question, q.type) for q in questions[1:]] == [
        ("Is it terse?", None),
        ("Where?", "extraction"),
    ]
    assert questions[1].provenance == {"file": "in.jsonl", "position": [3, 0]}


BAD = [
    ("{", "malformed", "not JSON at column 2"),
    ("[]", "not_an_object", "the line is a list"),
    ({"questions": QUESTIONS}, "missing_field", "no field 'messages'"),
    ({"messages": MESSAGES}, "missing_field", "no field 'questions'"),
    (line(questions=[]), "empty_field", "'questions' is an empty list"),
    (line([]), "empty_field", "'messages' is an empty list"),
    (line(["hi"]), "not_an_object", "messages[0]: a string"),
    (line([turn("user", "stimulus")]), "no_control", "no message has the segment 'control'"),
    (line([turn("narrator", "control")]), "unknown_role", "messages[0]: role 'narrator'"),
    (line([turn("user", "answer")]), "unknown_segment", "messages[0]: segment 'answer'"),
    (line([turn("user", "control", " ")]), "empty_field", "messages[0]: 'content' is empty"),
    (line([{**turn("user", "control"), "content": 3}]), "not_a_string", "is a number"),
    (
        line([*MESSAGES, {**turn("assistant", "completion"), "contents": "Hi"}]),
        "unknown_field",
        "messages[3]: 'contents' is not a field of a message; did you mean 'content'?",
    ),
    (line([MESSAGES[2], MESSAGES[0]]), "control_late", "after messages[0], a stimulus"),
    (line([*MESSAGES, turn("assistant", "stimulus")]), "open_end", "messages[3]: the conversation"),
    (line(questions=["Who?"]), "malformed_qa", "questions[0]: a string"),
    (line(questions=[{"question": "Who?"}]), "missing_field", "questions[0]: no field 'answer'"),
    (line(split="holdout"), "unknown_split", "split 'holdout'; expected one of train"),
    (line(label=[3]), "not_a_string", "'label' is a list"),
    ('{"messages": 1, "messages": 2}', "repeated_field", "a field occurs twice in an object"),
    (line(label="\ud800"), "invalid_unicode", "half a surrogate pair"),
    *(
        (f'{{"messages": {"[" * depth}{"]" * depth}}}', "malformed", "nested too deeply")
        for depth in (101, 600, 5000)
    ),
    (
        line(
            [
                *MESSAGES[:2],
                {
                    **turn("assistant", "completion"),
                    "tool_calls": 5,
                    "content": [{"type": "tool_use", "name": "tide", "input": {}}],
                },
            ]
        ),
        "malformed_tool_call",
        "tool_calls",
    ),
    ("{'messages': []}", "malformed", "not JSON at column 2"),
]


def test_malformed_lines_are_told_by_file_and_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *[bad for bad, _, _ in BAD])
    write(tmp_path / "b.jsonl", line())
    counts = import_own_conversations(tmp_path, tmp_path / "c", config=ImportConfig())
    assert counts["examples"] == 1
    dropped = read_dropped(tmp_path / "c/dropped.parquet")
    assert [one.where for one in dropped] == [f"a.jsonl:{n}" for n in range(1, len(BAD) + 1)]
    for one, (_, reason, words) in zip(dropped, BAD, strict=True):
        assert (one.reason, words in one.detail) == (reason, True), one
    assert all(f"`{reason}`" in DOCS for _, reason, _ in BAD)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no such file or folder; expected a file that ends in \.jsonl"
    ):
        own_digests(tmp_path / "none")
    with pytest.raises(DataError, match="holds no conversations"):
        own_digests(tmp_path)
    write(tmp_path / "a.jsonl", "{}")
    with pytest.raises(DataError, match=r"no row is left of 1; first: a\.jsonl:1, no field"):
        import_own_conversations(tmp_path, tmp_path / "c", config=ImportConfig())


def test_other_questions_leave_the_conversations_as_they_are(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", line())
    before, bytes_before = messages_digest(file), own_digests(file)
    write(file, line(questions=[["Who?", "A man."]]))
    assert messages_digest(file) == before
    assert own_digests(file) != bytes_before
    write(file, line(MESSAGES[:1]))
    assert messages_digest(file) != before


def test_an_experiment_imports_them(tmp_path: Path) -> None:
    files = write(
        tmp_path / "a.jsonl",
        *[line([turn("user", "control", f"Be {i}."), MESSAGES[2]]) for i in range(8)],
    )
    config = tmp_path / "own.yaml"
    data = {"path": str(files), "format": "conversations"}
    config.write_text(json.dumps({"experiment": "own", "data": data}))
    request = RunRequest(config=str(config), root=str(tmp_path / "root"), until="questions")
    assert [run.cached for run in request.open().run().steps] == [False, False]
    assert [run.cached for run in request.open().run().steps] == [True, True]
    changed = files.read_text().replace("A ferryman.", "A sailor.")
    files.write_text(changed)
    assert [run.cached for run in request.open().run().steps] == [True, False]


def test_the_example_of_the_docs_is_imported(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```jsonl\n(.*?)```", DOCS, flags=re.DOTALL)
    (tmp_path / "mine.jsonl").write_text(shown)
    args = ["import", tmp_path / "mine.jsonl", "--format", "conversations", "--out", tmp_path / "o"]
    result = CliRunner().invoke(app, [*map(str, args), "--json"])
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert found["conversations"]["dropped"] == {}
    assert found["conversations"]["examples"] == len(shown.splitlines())
    roles = {m.role for r in read_conversations(tmp_path / "o/conversations/conversations.parquet")
             for m in r.messages}  # fmt: skip
    assert "tool" in roles
