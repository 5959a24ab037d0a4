"""Several stimuli a control, each under several controls, some of them held out."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from core.records.table_files import read_conversations
from core.records.tables import Conversation
from generators.kinds.persona import Persona
from generators.llm.session import LLMSession
from generators.making.config import ConversationsConfig, FilterConfig
from generators.making.controls import Control, Stimulus
from generators.making.crossing import choose_stimuli, is_held_out, share_stimuli
from generators.making.generation import generate_conversations
from generators.quality.describe import describe_dataset

STIMULI = tuple(Stimulus(text=f"message {number}") for number in range(40))


def rows(folder: Path, stimuli: int, share: float) -> list[Conversation]:
    config = ConversationsConfig.model_validate(
        {
            "kinds": {"instruction": {"controls": 30, "stimuli": stimuli}},
            "splits": {"stimuli": share},
        }
    )
    folder.mkdir()
    generate_conversations(
        folder,
        LLMSession(log=folder / "log"),
        config=config,
    )
    return read_conversations(folder / "conversations.parquet")


def stimulus(row: Conversation) -> str:
    return next(m.content for m in row.messages if m.segment == "stimulus")


def test_no_stimulus_of_training_is_in_any_other_split(tmp_path: Path) -> None:
    by_split = defaultdict(set)
    for row in rows(tmp_path / "rows", 8, 0.25):
        if row.view != "control":
            by_split[row.split].add(stimulus(row))
    assert set(by_split) == {"train", "validation", "test", "test_seen"}
    held_out = by_split["validation"] | by_split["test"] | by_split["test_seen"]
    assert by_split["train"].isdisjoint(held_out)


def test_test_seen_has_the_controls_of_training_and_test_has_none_of_them(tmp_path: Path) -> None:
    by_split = defaultdict(set)
    for row in rows(tmp_path / "rows", 8, 0.25):
        by_split[row.split].add(row.control_id)
    assert by_split["test_seen"] == by_split["train"]
    assert by_split["test"].isdisjoint(by_split["train"])


def test_stimuli_stand_under_several_controls(tmp_path: Path) -> None:
    under = defaultdict(set)
    for row in rows(tmp_path / "rows", 8, 0.25):
        if row.view == "system":
            under[stimulus(row)].add(row.control_id)
    assert sum(len(controls) > 1 for controls in under.values()) > len(under) / 2


def test_without_a_share_each_control_has_its_first_stimuli_in_its_own_split() -> None:
    found = choose_stimuli(STIMULI, "train", count=3, share=0.0, seed=0)
    assert found == [(one, "train") for one in STIMULI[:3]]


def test_a_training_control_has_its_count_of_stimuli_in_two_splits() -> None:
    found = choose_stimuli(STIMULI, "train", count=8, share=0.25, seed=0)
    assert [split for _, split in found] == ["train"] * 6 + ["test_seen"] * 2
    assert all(is_held_out(one.text, 0.25, 0) == (split != "train") for one, split in found)


def test_written_controls_borrow_stimuli_that_do_not_give_them_away() -> None:
    texts = ["a pirate ship at sea", "a rainy day", "a cheap dinner"]
    controls = [
        Control(
            kind=Persona(),
            category="c",
            label=f"label-{i}",
            text=text,
            slot=i,
            stimuli=(Stimulus(text=said, request=f"r{i}"),),
        )
        for i, (text, said) in enumerate(
            zip(
                ["You are a pirate with a ship.", "You are a cook.", "You are shy."],
                texts,
                strict=True,
            )
        )
    ]
    share_stimuli(controls, {"persona": 3}, FilterConfig(), seed=0)
    assert [len(control.stimuli) for control in controls] == [3, 3, 3]
    own_first = [control.stimuli[0].text for control in controls]
    assert own_first == texts
    pirate = Control(
        kind=Persona(),
        category="c",
        label="pirate",
        text="You are a pirate with a ship at sea.",
        slot=4,
        stimuli=(Stimulus(text="Hello."),),
    )
    share_stimuli([*controls, pirate], {"persona": 4}, FilterConfig(), seed=0)
    assert texts[0] not in [one.text for one in pirate.stimuli]


def test_controls_that_training_has_seen_are_no_leak(tmp_path: Path) -> None:
    found = describe_dataset(rows(tmp_path / "rows", 8, 0.25), [], [])
    assert found["leaks"] == {"groups": [], "labels": [], "controls": []}
