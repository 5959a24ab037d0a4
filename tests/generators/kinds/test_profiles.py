"""Profiles: exact, the same for a seed, and begun by the smaller plan."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from profile_reader import Reader
from table_rows import conversation

from core.errors import ConfigError, DataError
from core.records.table_files import read_conversations, read_questions
from core.records.tables import Conversation, Question
from generators.kinds import get_kind
from generators.kinds.worlds import worlds
from generators.llm.prompt_files import PromptFiles
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, QuestionsConfig
from generators.making.generation import generate_conversations, generate_questions
from generators.rules.text import content_words

GRADES = ("single_fact", "two_hop", "comparison", "counting", "negation")


def draw(
    folder: Path, controls: int, per_control: int = 5, **changes: Any
) -> tuple[list[Conversation], list[Question]]:
    plan = {"controls": controls, "views": changes.pop("views", None)}
    made = ConversationsConfig.model_validate({"kinds": {"profile": plan}, **changes})
    asked = QuestionsConfig(per_control=per_control)
    log = folder / "log.sqlite"
    session = LLMSession(log=log)
    generate_conversations(folder / "c", session, config=made)
    generate_questions(folder / "c", folder / "q", session, config=asked)
    assert not log.exists()
    return (
        read_conversations(folder / "c/conversations.parquet"),
        read_questions(folder / "q/questions.parquet"),
    )


def by_example(questions: list[Question]) -> dict[str, list[Question]]:
    found = defaultdict(list)
    for question in questions:
        found[question.example_id].append(question)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Conversation], list[Question]]:
    return draw(tmp_path_factory.mktemp("made"), 2000, 10, views=["control"])


def test_every_answer_follows_from_the_sheets_text(
    made: tuple[list[Conversation], list[Question]],
) -> None:
    rows, questions = made
    asked = by_example(questions)
    grades: Counter[str | None] = Counter()
    for row in rows:
        reader = Reader(row.control)
        for one in asked[row.example_id]:
            assert one.type is not None
            wanted = reader.expected(one.type, one.question)
            said = f"{row.control}\n{one.type}: {one.question}"
            assert {reader.told(one.answer)} == wanted, f"{said}\ngot {one.answer}"
            grades[one.type] += 1
    assert grades == dict.fromkeys(GRADES, 4000)


def test_half_of_the_claims_are_answered_with_yes_whatever_is_asked(
    made: tuple[list[Conversation], list[Question]],
) -> None:
    asked: defaultdict[tuple[str | None, str], Counter[str]] = defaultdict(Counter)
    for one in made[1]:
        answer = one.answer.split(",")[0]
        if answer in ("Yes", "No"):
            verdict = one.question.split(" that ")[0] if one.type == "negation" else ""
            asked[one.type, verdict][answer] += 1
    assert len(asked) == 2 + 4  # flags, in one hop and in two, and four forms of a claim
    for counts in asked.values():
        assert 0.45 < counts["Yes"] / counts.total() < 0.55


def test_the_reader_would_notice_a_wrong_answer(
    made: tuple[list[Conversation], list[Question]],
) -> None:
    rows, questions = made
    asked = by_example(questions)
    noticed: Counter[str | None] = Counter()
    for row, other in itertools.pairwise(rows[:301]):
        reader = Reader(row.control)
        for one, wrong in zip(asked[row.example_id], asked[other.example_id], strict=True):
            wanted = reader.expected(str(one.type), one.question)
            noticed[one.type] += {reader.told(wrong.answer)} != wanted
    assert all(noticed[grade] > 400 for grade in GRADES)


def test_sheets_have_many_wordings(made: tuple[list[Conversation], list[Question]]) -> None:
    rows, questions = made
    assert len({row.control for row in rows}) == len(rows)
    assert len({row.label for row in rows}) == len(rows)
    categories = Counter(row.category for row in rows)
    assert set(categories) == set(worlds(PromptFiles()))
    assert max(categories.values()) - min(categories.values()) <= 1
    assert len({question.question for question in questions}) > 5000
    for found in by_example(questions).values():
        assert len({one.question for one in found}) == len(found)


def test_a_sheet_yields_all_that_can_be_asked_once() -> None:
    texts = PromptFiles()
    kind = get_kind("profile")
    drawn = next(iter(kind.controls(0, texts, None)))  # type: ignore[attr-defined]
    row = conversation(provenance={"facts": drawn.facts})
    for grade in GRADES:
        found = list(kind.questions(grade, row, texts, Random(0)))  # type: ignore[attr-defined]
        assert len(found) >= 4
        assert len({one.question for one in found}) >= len(found) - 3  # by another way, the same


_WORKER = """
import sys
from pathlib import Path
from tests.generators.kinds.test_profiles import draw
draw(Path(sys.argv[1]), 60, 7, splits={"test_ood": ["profile/moons"]})
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("one", "1"), ("two", "2")):
        subprocess.run(
            [sys.executable, "-c", _WORKER, str(tmp_path / name)],
            cwd=Path(__file__).parents[3],
            env={"PYTHONPATH": ".:tests", "PYTHONHASHSEED": seed},
            check=True,
        )
        files = sorted((tmp_path / name).rglob("*.parquet"))
        assert len(files) == 4
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]


def test_another_seed_draws_other_sheets(tmp_path: Path) -> None:
    one, _ = draw(tmp_path / "one", 20)
    two, _ = draw(tmp_path / "two", 20, seed=1)
    assert not {row.control for row in one} & {row.control for row in two}
    assert not {row.group_id for row in one} & {row.group_id for row in two}


def test_ten_times_as_many_begin_with_the_same_rows(tmp_path: Path) -> None:
    splits = {"test_ood": ["profile/moons"]}
    few, few_asked = draw(tmp_path / "few", 30, splits=splits)
    many, many_asked = draw(tmp_path / "many", 300, splits=splits)
    assert many[: len(few)] == few  # splits and all
    assert many_asked[: len(few_asked)] == few_asked


def test_splits_have_their_shares_and_hold_out_whole_worlds(tmp_path: Path) -> None:
    rows, _ = draw(tmp_path, 120, splits={"test": 0.2, "test_ood": ["profile/moons"]})
    assert {row.category for row in rows if row.split == "test_ood"} == {"moons"}
    assert all(row.split == "test_ood" for row in rows if row.category == "moons")
    controls = Counter({row.control_id: row.split for row in rows}.values())
    assert controls == {"train": 70, "test": 20, "validation": 10, "test_ood": 20}


def test_views_share_a_controls_questions_and_show_a_message(tmp_path: Path) -> None:
    rows, questions = draw(tmp_path, 12)
    asked = by_example(questions)
    messages = set(PromptFiles().seed_list("messages"))
    of_control = defaultdict(set)
    for row in rows:
        of_control[row.control_id].add(
            tuple((one.question, one.answer) for one in asked[row.example_id])
        )
        if row.view != "control":
            assert row.messages[-1].segment == "stimulus"
            assert row.messages[-1].content in messages
    assert Counter(row.view for row in rows) == {"control": 12, "stimulus": 12, "system": 12}
    assert all(len(found) == 1 for found in of_control.values())


def test_no_message_has_a_word_of_a_sheet(
    made: tuple[list[Conversation], list[Question]],
) -> None:
    messages = PromptFiles().seed_list("messages")
    assert len(set(messages)) == len(messages) >= 60
    said = {word for row in made[0] for word in content_words(row.control)}
    assert {word for message in messages for word in content_words(message)} & said == set()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("works as {value}", "works", r"village\.values\.trade.*expected \{value\} in it"),
        ("low: 19", "low: 85", r"village\.numbers\.age.*ten numbers or more"),
        ("noun: villager", "nuon: villager", r"village\.nuon: unknown field"),
    ],
)
def test_a_broken_world_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    packaged = Path(__file__).parents[3] / "generators/seeds/profile.yaml"
    (tmp_path / "profile.yaml").write_text(packaged.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"profile\.yaml: {words}"):
        worlds(PromptFiles(seeds=tmp_path))


def test_rows_without_facts_cannot_be_asked_about(tmp_path: Path) -> None:
    from dataclasses import replace

    from core.records.table_files import write_conversations

    rows, _ = draw(tmp_path, 3)
    write_conversations(
        tmp_path / "c/conversations.parquet", [replace(row, provenance={}) for row in rows]
    )
    with pytest.raises(DataError, match="provenance has no facts"):
        generate_questions(
            tmp_path / "c",
            tmp_path / "q",
            LLMSession(log=tmp_path / "log"),
            config=QuestionsConfig(),
        )
