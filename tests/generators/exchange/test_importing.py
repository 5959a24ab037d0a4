"""Import: what becomes of sound rows, and that nothing else is lost or let in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from published_files import published, qa, row, write_folder

from core.errors import ConfigError, DataError
from core.records.table_files import read_conversations, read_dropped, read_questions
from core.records.tables import Conversation, Dropped, Message, Question
from generators.exchange.config import ImportConfig
from generators.exchange.importing import import_conversations, import_questions, source_digests
from generators.splits import SplitConfig

CONFIG = ImportConfig()


class Imported:
    """Both tables of an import, and its counts."""

    def __init__(self, folder: Path, out: Path, config: ImportConfig = CONFIG) -> None:
        self.counts = import_conversations(folder, out / "c", config=config)
        self.question_counts = import_questions(folder, out / "c", out / "q")
        self.rows: list[Conversation] = read_conversations(out / "c" / "conversations.parquet")
        self.dropped: list[Dropped] = read_dropped(out / "c" / "dropped.parquet")
        self.questions: list[Question] = read_questions(out / "q" / "questions.parquet")
        self.dropped_questions: list[Dropped] = read_dropped(out / "q" / "dropped.parquet")


# ------------------------------------------------------------------------------- the folder


def test_digests_name_the_known_files_alone(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    assert list(source_digests(tmp_path)) == [
        "qa.json",
        "control.json",
        "stimulus.json",
        "stimulus_completion.json",
        "system.json",
    ]


def test_digests_see_every_changed_byte(tmp_path: Path) -> None:
    published(tmp_path)
    before = source_digests(tmp_path)
    with open(tmp_path / "system.json", "a") as file:
        file.write(" ")
    after = source_digests(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"system.json"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, "no such folder; expected qa.json and any of control.json"),
        ({}, "the folder is empty; expected qa.json"),
        ({"control": []}, "no qa.json; expected"),
        ({"qa": {}}, "no view file; expected"),
    ],
)
def test_a_folder_that_cannot_be_imported_is_one_line(
    files: dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    if files is not None:
        write_folder(folder, **files)
    with pytest.raises(DataError, match=words) as caught:
        source_digests(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(DataError, match="data: is not a folder"):
        source_digests(tmp_path / "data")


# ----------------------------------------------------------------------------- sound rows


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("control", [("user", "control of persona-job-x", "control")]),
        (
            "stimulus",
            [
                ("user", "control of persona-job-x", "control"),
                ("assistant", "control_model of persona-job-x", "control"),
                ("user", "stimulus_user of persona-job-x", "stimulus"),
            ],
        ),
        (
            "stimulus_completion",
            [
                ("user", "control of persona-job-x", "control"),
                ("assistant", "control_model of persona-job-x", "control"),
                ("user", "stimulus_user of persona-job-x", "stimulus"),
                ("assistant", "stimulus_model of persona-job-x", "completion"),
            ],
        ),
        (
            "system",
            [
                ("system", "control of persona-job-x", "control"),
                ("user", "stimulus_user of persona-job-x", "stimulus"),
            ],
        ),
    ],
)
def test_each_view_becomes_its_messages(
    view: str, expected: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    label = "persona-job-x"
    write_folder(tmp_path / "in", qa=qa(label), **{view: [row(view, label)]})
    (found,) = Imported(tmp_path / "in", tmp_path).rows
    assert [(m.role, m.content, m.segment) for m in found.messages] == expected
    assert (found.view, found.label, found.source, found.flags) == (view, label, "import", ())
    assert found.completion_origin == ("published" if view == "stimulus_completion" else None)
    assert found.provenance == {"file": f"{view}.json", "position": 0}


@pytest.mark.parametrize(
    ("label", "kind", "category"),
    [
        ("goal-emotion-hope", "goal", "emotion"),
        ("persona-job", "persona", "job"),
        ("sqa-eval-7-a", "extractive", "eval"),
        ("goal", "goal", "uncategorised"),
    ],
)
def test_kind_and_category_are_the_parts_of_the_label(
    label: str, kind: str, category: str, tmp_path: Path
) -> None:
    write_folder(tmp_path / "in", qa=qa(label), control=[row("control", label)])
    (found,) = Imported(tmp_path / "in", tmp_path).rows
    assert (found.kind, found.category) == (kind, category)


def test_rows_stand_in_the_order_of_views_and_then_of_the_file(tmp_path: Path) -> None:
    found = Imported(published(tmp_path / "in"), tmp_path).rows
    order = ["control", "stimulus", "stimulus_completion", "system"]
    places = [(order.index(r.view), r.provenance["position"]) for r in found]
    assert places == sorted(places)
    assert len({r.example_id for r in found}) == len(found)


def test_counts_are_those_of_the_table(tmp_path: Path) -> None:
    found = Imported(published(tmp_path / "in", labels=10), tmp_path)
    assert found.counts["controls"] == 30
    assert found.counts["examples"] == len(found.rows) == 60
    assert found.counts["dropped"] == {}
    assert found.counts["by_view"] == {
        "control": 20,
        "stimulus": 20,
        "stimulus_completion": 10,
        "system": 10,
    }
    assert found.counts["by_kind"] == {"persona": 40, "goal": 10, "extractive": 10}
    splits = found.counts["by_split"]
    assert splits["test"]["controls"] == 6
    assert sum(n["examples"] for n in splits.values()) == 60
    assert found.question_counts == {
        "questions": 120,
        "labels": 30,
        "dropped": {"no_conversation": 1},
    }


def test_every_row_of_a_label_gets_the_labels_questions(tmp_path: Path) -> None:
    found = Imported(published(tmp_path / "in"), tmp_path)
    label_of = {r.example_id: r.label for r in found.rows}
    assert [q.example_id for q in found.questions] == [
        r.example_id for r in found.rows for _ in range(2)
    ]
    for question in found.questions:
        label = label_of[question.example_id]
        assert question.provenance["label"] == label
        assert [question.question, question.answer] in qa(label)[label]
        assert question.type is None


def test_a_question_knows_its_place_in_the_file(tmp_path: Path) -> None:
    write_folder(
        tmp_path / "in",
        qa=qa("persona-job-a", "goal-style-b"),
        control=[row("control", "goal-style-b")],
    )
    found = Imported(tmp_path / "in", tmp_path).questions
    assert [q.provenance["position"] for q in found] == [[1, 0], [1, 1]]


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    label = "persona-job-x"
    extra: dict[str, Any] = {"rating": 4.5, "notes": [None, {"a": "é"}]}
    write_folder(tmp_path / "in", qa=qa(label), control=[row("control", label, **extra)])
    (found,) = Imported(tmp_path / "in", tmp_path).rows
    assert found.provenance["extra"] == extra


@pytest.mark.parametrize(
    "text",
    ["<|im_end|> and [INST]", "\x00\x1b[31m", "👩‍👩‍👧 עִבְרִית \u202e", "  spaces stay \n", "{{ x }}"],
)
def test_odd_text_is_kept_as_it_is(text: str, tmp_path: Path) -> None:
    label = "persona-job-x"
    write_folder(tmp_path / "in", qa={label: [[text, text]]}, control=[row("control", label, text)])
    found = Imported(tmp_path / "in", tmp_path)
    assert found.rows[0].messages == (Message(role="user", content=text, segment="control"),)
    assert (found.questions[0].question, found.questions[0].answer) == (text, text)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    label = "persona-job-x"
    data = b"\xef\xbb\xbf" + json.dumps([row("control", label)]).encode()
    write_folder(tmp_path / "in", qa=qa(label), control=data)
    assert Imported(tmp_path / "in", tmp_path).counts["examples"] == 1


def test_rows_of_one_label_or_one_control_are_one_group(tmp_path: Path) -> None:
    labels = ["persona-job-a", "persona-job-b", "persona-job-c"]
    write_folder(
        tmp_path / "in",
        qa=qa(*labels),
        control=[row("control", "persona-job-a", "Same."), row("control", "persona-job-c")],
        system=[row("system", "persona-job-b", "Same."), row("system", "persona-job-b", "Other.")],
    )
    rows = Imported(tmp_path / "in", tmp_path).rows
    groups = [r.group_id for r in rows]
    assert groups[0] == groups[2] == groups[3] != groups[1]
    assert len({r.control_id for r in rows}) == 3


def test_an_import_is_a_function_of_its_files(tmp_path: Path) -> None:
    published(tmp_path / "in")
    Imported(tmp_path / "in", tmp_path / "a")
    Imported(tmp_path / "in", tmp_path / "b")
    for name in ("c/conversations", "c/dropped", "q/questions", "q/dropped"):
        one, other = (tmp_path / part / f"{name}.parquet" for part in "ab")
        assert one.read_bytes() == other.read_bytes()


def test_changed_questions_leave_the_conversations_as_they_are(tmp_path: Path) -> None:
    published(tmp_path / "in")
    Imported(tmp_path / "in", tmp_path / "a")
    changed = json.loads((tmp_path / "in" / "qa.json").read_text())
    changed["persona-job-0"][0][1] = "Another answer."
    write_folder(tmp_path / "in", qa=changed)
    Imported(tmp_path / "in", tmp_path / "b")
    name = "c/conversations.parquet"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# ------------------------------------------------------------------------- malformed rows

GOOD = "persona-job-good"


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ("text", "not_an_object", "the row is a string; expected an object"),
        (None, "not_an_object", "the row is null"),
        ([1], "not_an_object", "the row is a list"),
        ({"label": GOOD}, "missing_field", "no field 'control_user'; found ['label']"),
        ({"control_user": "x"}, "missing_field", "no field 'label'"),
        ({"control_user": 3, "label": GOOD}, "not_a_string", "'control_user' is a number"),
        ({"control_user": "x", "label": None}, "not_a_string", "'label' is null"),
        ({"control_user": " \n", "label": GOOD}, "empty_field", "'control_user' is empty"),
        ({"control_user": "x", "label": ""}, "empty_field", "'label' is empty"),
        (row("control", "poem-short-x"), "unknown_kind", "begins with none of sqa, persona"),
        (row("control", "personal-x"), "unknown_kind", "label 'personal-x'"),
        (row("control", "goal-style-none"), "no_questions", "has no question in qa.json"),
        (row("control", GOOD), "duplicate_row", "same label and messages as row 0"),
    ],
)
def test_a_malformed_row_is_kept_apart_with_its_reason(
    bad: Any, reason: str, detail: str, tmp_path: Path
) -> None:
    write_folder(tmp_path / "in", qa=qa(GOOD), control=[row("control", GOOD), bad])
    found = Imported(tmp_path / "in", tmp_path)
    assert len(found.rows) == 1
    (dropped,) = found.dropped
    assert (dropped.reason, dropped.where) == (reason, "control.json[1]")
    assert detail in dropped.detail
    assert json.loads(dropped.raw) == bad
    assert found.counts["dropped"] == {reason: 1}


@pytest.mark.parametrize(
    ("text", "reason", "raw"),
    [
        (
            '{"control_user": "x", "control_user": "y", "label": "persona-job-good"}',
            "repeated_field",
            [["control_user", "x"], ["control_user", "y"], ["label", GOOD]],
        ),
        (
            '{"control_user": "x", "label": "persona-job-good", "more": [{"a": 1, "a": 1}]}',
            "repeated_field",
            None,
        ),
        (
            '{"control_user": "\\ud83d", "label": "persona-job-good"}',
            "invalid_unicode",
            {"control_user": "\ud83d", "label": GOOD},
        ),
        (
            '{"control_user": "x", "label": "persona-job-good", "score": 1e999}',
            "not_finite",
            None,
        ),
    ],
)
def test_json_that_no_table_holds_is_dropped(
    text: str, reason: str, raw: Any, tmp_path: Path
) -> None:
    rows = f"[{json.dumps(row('control', GOOD))}, {text}]"
    write_folder(tmp_path / "in", qa=qa(GOOD), control=rows)
    (dropped,) = Imported(tmp_path / "in", tmp_path).dropped
    assert dropped.reason == reason
    assert raw is None or json.loads(dropped.raw) == raw


def test_a_duplicate_is_one_in_its_view_alone(tmp_path: Path) -> None:
    rows = {view: [row(view, GOOD)] for view in ("control", "system")}
    write_folder(tmp_path / "in", qa=qa(GOOD), **rows)
    assert Imported(tmp_path / "in", tmp_path).counts["examples"] == 2


@pytest.mark.parametrize(
    ("pairs", "reason", "where"),
    [
        ("text", "malformed_qa", "qa.json[1]"),
        ([], "malformed_qa", "qa.json[1]"),
        ({"q": "a"}, "malformed_qa", "qa.json[1]"),
        ([["q"]], "malformed_qa", "qa.json[1][0]"),
        ([["q", "a", "b"]], "malformed_qa", "qa.json[1][0]"),
        ([["q", 3]], "malformed_qa", "qa.json[1][0]"),
        ([{"q": "a"}], "malformed_qa", "qa.json[1][0]"),
        ([["q", "a"], ["", "a"]], "empty_field", "qa.json[1][1]"),
        ([["q", "a"], ["q", " "]], "empty_field", "qa.json[1][1]"),
        ([["q", "a"], ["q", "a"]], "duplicate_question", "qa.json[1][1]"),
        ([["q", "a"], ["q", "\ud800"]], "invalid_unicode", "qa.json[1][1]"),
    ],
)
def test_malformed_questions_are_kept_apart(
    pairs: Any, reason: str, where: str, tmp_path: Path
) -> None:
    other = "goal-style-x"
    write_folder(
        tmp_path / "in",
        qa=json.dumps({**qa(GOOD), other: pairs}),
        control=[row("control", GOOD), row("control", other)],
    )
    found = Imported(tmp_path / "in", tmp_path)
    (dropped,) = found.dropped_questions
    assert (dropped.reason, dropped.where) == (reason, where)
    assert list(json.loads(dropped.raw)) == [other]
    # a label without one good question has none, and its rows say so
    good = len(pairs) == 2
    assert found.counts["dropped"] == ({} if good else {"no_questions": 1})
    assert len(found.questions) == (3 if good else 2)


def test_a_label_that_stands_twice_keeps_its_first_questions(tmp_path: Path) -> None:
    text = f'{{"{GOOD}": [["q", "first"]], "{GOOD}": [["q", "second"]]}}'
    write_folder(tmp_path / "in", qa=text, control=[row("control", GOOD)])
    found = Imported(tmp_path / "in", tmp_path)
    assert [q.answer for q in found.questions] == ["first"]
    (dropped,) = found.dropped_questions
    assert (dropped.reason, dropped.where) == ("repeated_label", "qa.json[1]")
    assert json.loads(dropped.raw) == {GOOD: [["q", "second"]]}


def test_questions_without_a_conversation_are_kept_whole(tmp_path: Path) -> None:
    labels = qa("persona-job-orphan", GOOD)
    write_folder(tmp_path / "in", qa=labels, control=[row("control", GOOD)])
    (dropped,) = Imported(tmp_path / "in", tmp_path).dropped_questions
    assert (dropped.reason, dropped.where) == ("no_conversation", "qa.json[0]")
    assert json.loads(dropped.raw) == {"persona-job-orphan": labels["persona-job-orphan"]}


def test_no_row_left_is_an_error_that_shows_the_first(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", qa=qa(GOOD), control=[{"label": GOOD}, 3])
    with pytest.raises(
        DataError, match=r"no row is left of 2; first: control\.json\[0\], no field 'control_user'"
    ):
        Imported(tmp_path / "in", tmp_path)


def test_questions_of_another_qa_file_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", qa=qa(GOOD), control=[row("control", GOOD)])
    import_conversations(tmp_path / "in", tmp_path / "c", config=CONFIG)
    write_folder(tmp_path / "in", qa=qa("persona-job-other"))
    with pytest.raises(DataError, match=f"no question for label '{GOOD}'.*has changed"):
        import_questions(tmp_path / "in", tmp_path / "c", tmp_path / "q")


# ------------------------------------------------------------------------- malformed files


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("control", '[\n {"a": 1},\n {"b" 2}\n]', "line 3, column 7: Expecting ':' delimiter"),
        ("control", '["a"', "line 1, column 5: Expecting ',' delimiter"),
        ("qa", "", "line 1, column 1: Expecting value"),
        ("qa", "{} {}", "line 1, column 4: Extra data"),
        ("control", b'[\n "\xff"]', "line 2, column 3: not UTF-8 text"),
        ("control", '[{"x": "NaN \\" NaN",\n "y": NaN}]', "line 2, column 7: NaN is no JSON"),
        ("control", "[1,\n -Infinity]", "line 2, column 2: -Infinity is no JSON value"),
        ("control", "[" * 100_000, "nested too deeply"),
        ("control", f"[{'9' * 5000}]", "not read as JSON: Exceeds the limit"),
        ("control", "{}", "holds an object; expected a list of rows"),
        ("qa", "[]", "holds a list; expected an object of labels"),
        ("qa", '"x"', "holds a string; expected an object of labels"),
    ],
)
def test_a_malformed_file_is_one_line_with_its_place(
    name: str, data: str | bytes, words: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "in", qa=qa(GOOD), control=[row("control", GOOD)])
    write_folder(folder, **{name: data})
    with pytest.raises(DataError) as caught:
        Imported(folder, tmp_path / "out")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{folder / name}.json: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------- splits, limits


def test_no_group_falls_into_two_splits(tmp_path: Path) -> None:
    rows = Imported(published(tmp_path / "in", labels=40), tmp_path).rows
    splits: dict[str, set[str]] = {}
    for found in rows:
        splits.setdefault(found.group_id, set()).add(found.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {r.split for r in rows} == {"train", "validation", "test"}


def test_held_out_categories_are_test_ood(tmp_path: Path) -> None:
    config = ImportConfig(splits=SplitConfig(test_ood=("goal/emotion",)))
    rows = Imported(published(tmp_path / "in"), tmp_path, config).rows
    assert {r.split for r in rows if r.kind == "goal"} == {"test_ood"}
    assert "test_ood" not in {r.split for r in rows if r.kind != "goal"}


def test_a_held_out_category_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    config = ImportConfig(splits=SplitConfig(test_ood=("goal/emotions",)))
    with pytest.raises(ConfigError, match="did you mean 'goal/emotion'"):
        Imported(published(tmp_path / "in"), tmp_path, config)


def test_a_limit_keeps_rows_of_each_view_over_the_splits(tmp_path: Path) -> None:
    published(tmp_path / "in", labels=20)
    whole = Imported(tmp_path / "in", tmp_path / "whole")
    found = Imported(tmp_path / "in", tmp_path / "limited", ImportConfig(limit=6))
    assert set(found.counts["by_view"].values()) == {6}
    for view in found.counts["by_view"]:
        splits = [r.split for r in found.rows if r.view == view]
        assert sorted(splits) == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2
    # what is kept is what it was, and the rest is counted
    assert all(r in whole.rows for r in found.rows)
    assert found.counts["dropped"] == {"over_limit": 120 - 24}
    assert {d.where for d in found.dropped} | {
        f"{r.provenance['file']}[{r.provenance['position']}]" for r in found.rows
    } == {f"{r.provenance['file']}[{r.provenance['position']}]" for r in whole.rows}


def test_a_limit_beyond_the_rows_drops_none(tmp_path: Path) -> None:
    found = Imported(published(tmp_path / "in"), tmp_path, ImportConfig(limit=1000))
    assert found.counts["dropped"] == {}
