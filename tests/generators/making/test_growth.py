"""Growth: quotas by category, earlier versions, and larger plans that begin with smaller ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from endpoints import conversations, questions, resolved, small
from pydantic import ValidationError
from scripted_endpoint import ScriptedEndpoint

from core.errors import ConfigError, DataError
from core.records.table_files import read_conversations, read_dropped, read_questions
from core.records.tables import Conversation, Question
from generators.kinds.config import KindPlan
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, GenerateSection, QuestionsConfig
from generators.making.externals import earlier_tables, generation_externals
from generators.making.generation import generate_conversations, generate_questions


def kinds(**plans: Any) -> ConversationsConfig:
    return ConversationsConfig.model_validate({"kinds": plans})


def drawn(folder: Path, plan: dict[str, Any], earlier: list[Path] | None = None) -> Any:
    """Profiles in `folder`, and the counts."""
    return generate_conversations(
        folder,
        LLMSession(log=folder / "log"),
        config=kinds(profile={"views": ["control"], **plan}),
        earlier=[path / "conversations.parquet" for path in earlier or []],
    )


def controls(folder: Path) -> list[Conversation]:
    rows = {row.control_id: row for row in read_conversations(folder / "conversations.parquet")}
    return list(rows.values())


def test_a_plan_by_category_is_filled_by_category(tmp_path: Path) -> None:
    plan = {"categories": {"sea": 3, "science": 1}}
    with ScriptedEndpoint() as endpoint:
        counts = conversations(tmp_path, resolved(endpoint), kinds(persona=plan, goal={}))
    found = Counter(row.category for row in controls(tmp_path / "c") if row.kind == "persona")
    assert found == {"sea": 3, "science": 1}
    assert counts["by_kind"]["persona"] == {"planned": 4, "kept": 4}


def test_profiles_can_be_planned_by_world(tmp_path: Path) -> None:
    drawn(tmp_path / "few", {"categories": {"moons": 2, "village": 5}})
    few = controls(tmp_path / "few")
    assert Counter(row.category for row in few) == {"moons": 2, "village": 5}
    drawn(tmp_path / "many", {"categories": {"moons": 20, "village": 50}})
    assert {row.control_id for row in few} < {row.control_id for row in controls(tmp_path / "many")}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"categories": {"sea": 3}, "controls": 4}, "got 4, and 3 in all categories"),
        ({"categories": {"sea": 0, "money": 2}}, "each with a number above 0"),
        ({"categories": {}}, "expected at least one"),
    ],
)
def test_a_plan_that_does_not_add_up_is_refused(plan: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        KindPlan.model_validate(plan)


def test_an_unknown_category_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"profile\.categories: unknown category 'moon'; expected any"
    ):
        drawn(tmp_path, {"categories": {"moon": 2}})


def test_controls_of_earlier_versions_do_not_come_again(tmp_path: Path) -> None:
    drawn(tmp_path / "one", {"controls": 10})
    drawn(tmp_path / "two", {"controls": 10}, [tmp_path / "one"])
    first, second = controls(tmp_path / "one"), controls(tmp_path / "two")
    assert not {row.control_id for row in first} & {row.control_id for row in second}
    assert not {row.group_id for row in first} & {row.group_id for row in second}
    dropped = read_dropped(tmp_path / "two/dropped.parquet")
    assert [row.reason for row in dropped] == ["duplicate"] * 10
    drawn(tmp_path / "all", {"controls": 20})
    assert [row.control_id for row in controls(tmp_path / "all")] == [
        row.control_id for row in (*first, *second)
    ]


def test_what_an_llm_writes_is_compared_with_earlier_versions_too(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        conversations(tmp_path, resolved(endpoint), small(2, kinds={"goal": {"controls": 2}}))
        old = tmp_path / "c/conversations.parquet"
        counts = generate_conversations(
            tmp_path / "again",
            LLMSession(log=tmp_path / "log.sqlite", endpoint=resolved(endpoint)),
            config=kinds(goal={"controls": 2}),
            earlier=[old],
        )
    assert counts["dropped"]["near_duplicate"] == 2  # the replies in the log give the same controls
    before = {row.control_id for row in read_conversations(old)}
    assert not before & {row.control_id for row in controls(tmp_path / "again")}


def test_earlier_versions_are_part_of_the_identity_by_their_bytes(tmp_path: Path) -> None:
    drawn(tmp_path / "one", {"controls": 3})
    plain = GenerateSection(conversations=kinds(profile={}))
    (tmp_path / "moved/data").mkdir(parents=True)
    moved = tmp_path / "moved/data/conversations.parquet"
    moved.write_bytes((tmp_path / "one/conversations.parquet").read_bytes())

    def identity(*names: Path) -> Any:
        section = plain.model_copy(update={"earlier": tuple(map(str, names))})
        return generation_externals(section)["conversations"]

    assert "earlier" not in identity()
    assert identity(tmp_path / "one") == identity(moved) == identity(tmp_path / "moved")
    assert identity(moved)["earlier"] != []
    with pytest.raises(DataError, match=r"generate\.earlier: .*no conversations\.parquet there"):
        earlier_tables(plain.model_copy(update={"earlier": (str(tmp_path / "none"),)}))


def test_ten_times_as_many_ask_no_request_again_and_keep_the_first_questions(
    tmp_path: Path,
) -> None:
    def tables(controls_: int, endpoint: ScriptedEndpoint) -> tuple[list[Any], list[Any]]:
        plan = small(kinds={"goal": {"controls": controls_}, "profile": {"controls": controls_}})
        conversations(tmp_path, resolved(endpoint), plan)
        questions(tmp_path, resolved(endpoint))
        return (
            read_conversations(tmp_path / "c/conversations.parquet"),
            read_questions(tmp_path / "q/questions.parquet"),
        )

    with ScriptedEndpoint() as endpoint:
        few, few_asked = tables(3, endpoint)
        bodies = [str(body) for body in endpoint.work]
        many, many_asked = tables(30, endpoint)
        repeated = Counter(str(body) for body in endpoint.work)
    assert all(repeated[body] == 1 for body in bodies)
    for kind in ("goal", "profile"):
        ids = [row.example_id for row in few if row.kind == kind]
        assert [row.example_id for row in many if row.kind == kind][: len(ids)] == ids
    # the questions of a row depend on those before it alone: drawn ones always, written ones as far
    # as no later control's answer is asked for before
    by_example: dict[str, list[Question]] = defaultdict(list)
    for question in many_asked:
        by_example[question.example_id].append(question)
    grown = {row.example_id: row.kind for row in few}
    own: dict[str, list[Question]] = defaultdict(list)
    for question in few_asked:
        own[question.example_id].append(question)
    assert all(by_example[example] == own[example] for example in grown)


def test_sixteen_questions_a_control_are_all_different(tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        conversations(tmp_path, resolved(endpoint), small(2))
        counts = questions(tmp_path, resolved(endpoint), QuestionsConfig(per_control=16))
    by_example: dict[str, list[str]] = defaultdict(list)
    for question in read_questions(tmp_path / "q/questions.parquet"):
        by_example[question.example_id].append(question.question)
    kinds_ = {
        r.example_id: r.kind for r in read_conversations(tmp_path / "c/conversations.parquet")
    }
    for example, asked in by_example.items():
        assert len(set(asked)) == len(asked), asked
        assert len(asked) == 16, kinds_[example]
    assert counts["questions_asked"] == 6 * 16


def test_profiles_have_sixteen_questions_each(tmp_path: Path) -> None:
    drawn(tmp_path, {"controls": 20})
    generate_questions(
        tmp_path,
        tmp_path / "q",
        LLMSession(log=tmp_path / "log"),
        config=QuestionsConfig(per_control=16),
    )
    asked = Counter(q.example_id for q in read_questions(tmp_path / "q/questions.parquet"))
    assert set(asked.values()) == {16}


def test_judged_controls_of_a_kind_can_be_asked_the_same_questions(tmp_path: Path) -> None:
    plan = small(
        kinds={"persona": {"controls": 12, "views": ["control"]}},
        splits={"validation": 0.0, "test": 0.4},
    )
    asked: dict[bool, dict[str, set[str]]] = {}
    with ScriptedEndpoint() as endpoint:
        conversations(tmp_path, resolved(endpoint), plan)
        split_of = {
            row.example_id: row.split
            for row in read_conversations(tmp_path / "c/conversations.parquet")
        }
        for shared in (False, True):
            config = QuestionsConfig(per_control=4, shared=shared)
            questions(tmp_path, resolved(endpoint), config)
            found: dict[str, set[str]] = defaultdict(set)
            for one in read_questions(tmp_path / "q/questions.parquet"):
                found[one.question].add(one.example_id)
            of_test = {
                question: ids
                for question, rows in found.items()
                if (ids := {example for example in rows if split_of[example] == "test"})
            }
            asked[shared] = of_test
            training = {q for q, rows in found.items() if rows - of_test.get(q, set())}
            assert len(training) > 4  # paraphrases of training stay many
    controls = sum(split == "test" for split in split_of.values())
    assert controls >= 4
    assert {len(rows) for rows in asked[True].values()} == {controls}
    assert min(len(rows) for rows in asked[False].values()) < 4
