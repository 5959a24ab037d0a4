"""Hidden system prompts on a target that carries a known feature of them into later tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reading_model
import torch
from reading_model import LAYER, SUBJECTS, object_of

from activation_store.tokens.tokens import tokenize_row
from core.records.table_files import CONVERSATIONS_FILE, write_conversations
from core.records.tables import Conversation, Message, Split, control_id, example_id
from core.runtime import Runtime
from decoder.model import Decoder
from evaluators.tasks.config import PromptsConfig, TasksConfig
from evaluators.tasks.metrics import PredictorMetrics
from evaluators.tasks.prompt_task import build_prompt_tasks
from evaluators.tasks.rows import TaskData
from evaluators.tasks.tasks import TaskInputs, run_tasks

PROMPTS = PromptsConfig(splits=("test",), answer_tokens=4)
CONFIG = TasksConfig(prompts=PROMPTS, layers=(1, 2), bootstrap=200)
PARTS: dict[Split, str] = {"test": SUBJECTS[:4], "validation": SUBJECTS[4:8]}
"""Letters of each split's controls; four letters in a row have four objects."""


def conversation(letter: str, split: Split) -> Conversation:
    control = f"{object_of(letter)} {letter}"
    messages = (
        Message(role="system", content=control, segment="control"),
        Message(role="user", content="hello there", segment="stimulus"),
    )
    return Conversation(
        example_id=example_id(control, "system", messages),
        control_id=control_id("persona", control),
        group_id=letter,
        kind="persona",
        category="letters",
        label=control,
        view="system",
        split=split,
        source="test",
        messages=messages,
    )


def conversations() -> list[Conversation]:
    return [conversation(letter, split) for split, part in PARTS.items() for letter in part]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.set_num_threads(1)
    return reading_model.decoder()


@pytest.fixture(scope="module")
def tasks(decoder: Decoder) -> list[TaskData]:
    return list(build_prompt_tasks(decoder, conversations(), CONFIG, PROMPTS, (1, 2)))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PredictorMetrics]:
    folder = tmp_path_factory.mktemp("prompts")
    for name in ("decoder", "tables", "out"):
        (folder / name).mkdir()
    reading_model.decoder().save(folder / "decoder")
    write_conversations(folder / "tables" / CONVERSATIONS_FILE, conversations())
    inputs = TaskInputs(
        model=reading_model.model(), decoder=folder / "decoder", conversations=folder / "tables"
    )
    found = run_tasks(
        inputs,
        folder / "out",
        folder,
        config=CONFIG,
        runtime=Runtime(device="cpu", threads=1),
    )
    return found.tasks["hidden_system_test"].predictors


def chosen(found: dict[str, PredictorMetrics], name: str) -> float:
    share = found[name].chosen.estimate
    assert share is not None
    return share


def test_each_split_is_a_task_and_one_with_decoys(tasks: list[TaskData]) -> None:
    assert [task.name for task in tasks] == ["hidden_system_test", "hidden_system_test_decoy"]
    assert all(task.why_not is None and len(task.test) == 4 for task in tasks)


def test_nothing_of_the_control_is_among_what_is_read(
    decoder: Decoder, tasks: list[TaskData]
) -> None:
    for row in tasks[0].test:
        text = decoder.tokenizer.decode(row.token_ids)
        assert "hello there" in text
        assert row.answer not in text
        assert row.vectors[LAYER].shape == (len(row.token_ids), 336)


def test_swapped_rows_have_the_same_tokens_and_other_activations(tasks: list[TaskData]) -> None:
    for row in tasks[0].test:
        assert row.swapped is not None
        assert row.swapped[LAYER].shape == row.vectors[LAYER].shape
        assert not np.allclose(row.swapped[LAYER], row.vectors[LAYER])


def test_in_decoy_tasks_the_user_quotes_another_option(
    decoder: Decoder, tasks: list[TaskData]
) -> None:
    for row in tasks[1].test:
        text = decoder.tokenizer.decode(row.token_ids)
        quoted = [option for option in row.options if option in text]
        assert len(quoted) == 1
        assert quoted != [row.answer]


def test_the_hidden_prompt_is_told_from_its_activations_alone(
    measured: dict[str, PredictorMetrics],
) -> None:
    assert chosen(measured, "lit") == 1.0
    assert chosen(measured, "swapped") == 0.0  # each swap has another object
    assert chosen(measured, "none") == 0.25
    lead = measured["swapped"].lead
    assert lead is not None
    assert lead.estimate == 1.0


def test_before_the_block_that_carries_it_nothing_is_there(
    measured: dict[str, PredictorMetrics],
) -> None:
    assert measured["patchscope"].by_layer["1"].estimate == 0.25
    assert measured["patchscope"].by_layer["2"].estimate == 1.0


def test_probe_and_neighbour_have_no_place_where_all_answers_are_new(
    measured: dict[str, PredictorMetrics],
) -> None:
    assert not {"probe", "neighbour"} & measured.keys()


def test_without_four_controls_of_a_kind_it_says_so(decoder: Decoder) -> None:
    rows = [replace(row, kind=row.label) for row in conversations()]
    found = next(build_prompt_tasks(decoder, rows, CONFIG, PROMPTS, (1,)))
    assert found.why_not == (
        "no kind has 4 controls among the validation rows, as a choice among 4 requires"
    )


def test_rows_longer_than_the_target_was_made_for_are_left_out(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(len(tokenize_row(decoder.tokenizer, row).ids) for row in conversations())
    monkeypatch.setattr(Decoder, "shape", replace(decoder.shape, max_positions=longest))
    found = list(build_prompt_tasks(decoder, conversations(), CONFIG, PROMPTS, (1,)))
    lost = [task.counts["dropped: template or length"] for task in found]
    assert [len(task.test) for task in found] == [4, 0]
    assert lost == [0, 4]


def test_written_answers_are_compared_with_the_prompt(
    measured: dict[str, PredictorMetrics],
) -> None:
    assert measured["lit"].similarity is not None
    assert measured["lit"].similarity.n == 4
    assert measured["lit"].contained is None
