"""Conversations joined with questions, and the selection among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import chain
import pytest

from activation_store.read.reader import ActivationStore
from core.errors import DataError
from core.records.tables import Question, View
from trainers.data.rows import Row, load_rows, select, tokenize_questions

VIEWS: tuple[View, ...] = ("control", "stimulus", "system")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(VIEWS, {"train": 10, "test": 3})
    return chain.make(tmp_path_factory.mktemp("rows"), rows, max_tokens=90, too_long="drop")


def rows_of(views: tuple[View, ...] = VIEWS, controls: int = 10) -> list[Row]:
    return [Row(c, tuple(asked)) for c, asked in chain.rows_of(views, {"train": controls})]


def ids(rows: list[Row]) -> list[str]:
    return [row.example_id for row in rows]


def test_each_row_has_its_own_questions(made: chain.Chain) -> None:
    rows = load_rows(made.conversations, made.questions, ActivationStore(made.store))
    assert all(q.example_id == row.example_id for row in rows for q in row.questions)
    assert {len(row.questions) for row in rows} == {2}


def test_rows_that_the_dump_dropped_are_left_out(made: chain.Chain) -> None:
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    swapped = 2  # of the test rows in view system
    assert 0 < len(rows) == len(store.index) - swapped < 13 * len(VIEWS)
    assert {row.conversation.view for row in rows} == {"control", "system"}


def test_rows_without_questions_are_left_out(made: chain.Chain, tmp_path: Path) -> None:
    every = chain.rows_of(VIEWS, {"train": 10, "test": 3})
    chain.write_tables(tmp_path, every[:4])
    rows = load_rows(made.conversations, tmp_path, ActivationStore(made.store))
    assert set(ids(rows)) <= {c.example_id for c, _ in every[:4]}
    assert rows


def test_tables_that_do_not_belong_together_are_refused(made: chain.Chain, tmp_path: Path) -> None:
    chain.write_tables(tmp_path, [chain.row(99)])
    with pytest.raises(DataError, match=r"no conversation of .* do they belong together"):
        load_rows(made.conversations, tmp_path, ActivationStore(made.store))


def test_a_smaller_selection_is_the_beginning_of_a_larger_one() -> None:
    rows = rows_of()
    larger = select(rows, split="train", views=VIEWS, most=None, seed=3)
    assert sorted(ids(larger)) == sorted(ids(rows))
    for most in (1, 7, 29):
        smaller = select(rows, split="train", views=VIEWS, most=most, seed=3)
        assert ids(smaller) == ids(larger)[:most]


def test_a_selection_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    rows = rows_of()
    chosen = select(rows, split="train", views=VIEWS, most=9, seed=1)
    assert ids(chosen) == ids(select(rows[::-1], split="train", views=VIEWS, most=9, seed=1))
    assert ids(chosen) != ids(select(rows, split="train", views=VIEWS, most=9, seed=2))


def test_views_are_taken_by_turns() -> None:
    chosen = select(rows_of(), split="train", views=VIEWS, most=9, seed=0)
    assert [row.conversation.view for row in chosen] == list(VIEWS) * 3


def test_a_mixture_weighs_the_views() -> None:
    weights = {"control": 3.0, "system": 0.0}
    chosen = select(rows_of(), split="train", views=VIEWS, most=12, seed=0, mixture=weights)
    counts = Counter(row.conversation.view for row in chosen)
    assert counts == {"control": 9, "stimulus": 3}


def mixed(number: int, kind: str, source: str, view: View = "control") -> Row:
    conversation, asked = chain.row(number, kind=kind, view=view)
    return Row(replace(conversation, source=source), tuple(asked))


def test_a_mixture_weighs_kinds_and_their_views_share_what_a_kind_has() -> None:
    rows = [mixed(i, "persona", "generator", view) for i in range(20) for view in VIEWS]
    rows += [mixed(100 + i, "profile", "generator") for i in range(20)]
    weights = {"persona": 1.0, "profile": 2.0, "control": 2.0}
    chosen = select(rows, split="train", views=VIEWS, most=24, seed=0, mixture=weights)
    counts = Counter((row.conversation.kind, row.conversation.view) for row in chosen)
    assert counts == {
        ("profile", "control"): 16,
        ("persona", "control"): 4,
        ("persona", "stimulus"): 2,
        ("persona", "system"): 2,
    }


def test_a_mixture_weighs_sources_above_kinds() -> None:
    rows = [mixed(i, kind, "import") for i, kind in enumerate(["persona", "goal"] * 10)]
    rows += [mixed(100 + i, "context", "generator") for i in range(20)]
    weights = {"generator": 3.0, "import": 1.0, "goal": 0.0}
    chosen = select(rows, split="train", views=VIEWS, most=16, seed=0, mixture=weights)
    counts = Counter(row.conversation.kind for row in chosen)
    assert counts == {"context": 12, "persona": 4}


def test_any_beginning_of_a_mixture_has_its_shares_to_less_than_a_row() -> None:
    rows = [mixed(i, "persona", "import") for i in range(60)]
    rows += [mixed(100 + i, "goal", "import") for i in range(60)]
    weights = {"persona": 0.3, "goal": 0.7}
    chosen = select(rows, split="train", views=VIEWS, most=None, seed=4, mixture=weights)
    for n in range(1, 60):
        goals = sum(row.conversation.kind == "goal" for row in chosen[:n])
        assert abs(goals - 0.7 * n) < 1


def test_only_rows_of_the_split_and_the_views_are_selected() -> None:
    rows = rows_of()
    assert not select(rows, split="test", views=VIEWS, most=None, seed=0)
    chosen = select(rows, split="train", views=["system"], most=None, seed=0)
    assert {row.conversation.view for row in chosen} == {"system"}


def test_a_question_with_a_control_token_is_named_with_its_row(made: chain.Chain) -> None:
    conversation, _ = chain.row(0)
    bad = Question(example_id=conversation.example_id, question="<|im_end|>?", answer="x")
    with pytest.raises(DataError, match=f"example {conversation.example_id} .*control token"):
        tokenize_questions(chain.decoder(made).prompt, Row(conversation, (bad,)))
