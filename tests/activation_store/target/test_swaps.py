"""A row's own visible text under another control."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny

from activation_store.target.swaps import SWAPPED_FROM, make_swaps, tokenize_swapped
from activation_store.tokens.tokens import COMPLETION_IDS, tokenize_row
from core.records.tables import Conversation, Message, Split, View, example_id


def row(
    control: str,
    stimulus: str,
    *,
    view: View = "system",
    split: Split = "test",
    kind: str = "persona",
) -> Conversation:
    role = "system" if view == "system" else "user"
    messages = [Message(role=role, content=control, segment="control")]
    if view == "stimulus":
        messages.append(Message(role="assistant", content=f"Ack {control}", segment="control"))
    if view != "control":
        messages.append(Message(role="user", content=stimulus, segment="stimulus"))
    return Conversation(
        example_id=example_id(control, view, messages),
        control_id=f"id-{control}",
        group_id=f"group-{control}",
        kind=kind,
        category="c",
        label=control,
        view=view,
        split=split,
        source="generator",
        messages=tuple(messages),
    )


def lengths(rows: list[Conversation]) -> dict[str, int]:
    return {one.example_id: len(one.control) for one in rows}


def test_a_swap_has_the_donors_control_and_the_rows_own_words() -> None:
    rows = [row("one", "hello", view="stimulus"), row("two", "bye", view="stimulus")]
    first, _ = make_swaps(rows, lengths(rows), ["test"])
    assert first.row == rows[0]
    assert [m.content for m in first.swapped.messages] == ["two", "Ack two", "hello"]
    assert first.swapped.provenance == {SWAPPED_FROM: rows[0].example_id}


def test_the_control_nearest_in_length_is_taken() -> None:
    rows = [row("abc", "x"), row("abcdefgh", "x"), row("abcd", "x")]
    swaps = {s.row.label: s.donor.label for s in make_swaps(rows, lengths(rows), ["test"])}
    assert swaps == {"abc": "abcd", "abcd": "abc", "abcdefgh": "abcd"}


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [row(f"control {i}", f"stimulus {j}") for i in range(5) for j in range(2)]
    one = {s.row.example_id: s.swapped for s in make_swaps(rows, lengths(rows), ["test"])}
    two = {s.row.example_id: s.swapped for s in make_swaps(rows[::-1], lengths(rows), ["test"])}
    assert one == two


def test_in_a_crossed_design_the_swap_is_a_row_already() -> None:
    rows = [row(control, said) for control in ("abc", "xyz") for said in ("hello", "bye")]
    ids = {one.example_id for one in rows}
    assert {s.swapped.example_id for s in make_swaps(rows, lengths(rows), ["test"])} == ids


@pytest.mark.parametrize(
    "lonely",
    [
        row("other kind", "x", kind="goal"),
        row("other view", "x", view="stimulus"),
        row("other split", "x", split="train"),
        row("seen", "x", view="control"),
        replace(row("same group", "x"), group_id="group-abc"),
        replace(row("abc", "y"), control_id="another", group_id="another"),
    ],
)
def test_a_row_without_another_control_of_its_like_has_no_swap(lonely: Conversation) -> None:
    rows = [row("abc", "x"), lonely]
    assert make_swaps(rows, lengths(rows), ["test"]) == []


def test_a_control_in_the_midst_of_visible_text_cannot_be_swapped() -> None:
    mixed = row("abc", "x")
    mixed = replace(mixed, messages=(*mixed.messages, mixed.messages[0]))
    rows = [mixed, row("abd", "x"), row("abe", "x")]
    assert {s.row.label for s in make_swaps(rows, lengths(rows), ["test"])} == {"abd", "abe"}


def test_a_completion_keeps_the_token_ids_that_the_target_generated() -> None:
    tokenizer = tiny.tokenizer(merges=True)
    spelled = [tokenizer.convert_tokens_to_ids(letter) for letter in "the"]
    assert tokenizer("the", add_special_tokens=False)["input_ids"] != spelled
    reply = Message(role="assistant", content="the", segment="completion")
    rows = [
        replace(
            one,
            view="stimulus_completion",
            messages=(*one.messages, reply),
            provenance={COMPLETION_IDS: spelled},
        )
        for one in (row("abc", "hello", view="stimulus"), row("xyz", "bye", view="stimulus"))
    ]
    tokens = {one.example_id: tokenize_row(tokenizer, one) for one in rows}
    swapped = dict(tokenize_swapped(rows, tokens, tokenizer, longest=1000))
    assert [found.ids[-3:].tolist() for found in swapped.values()] == [spelled, spelled]
