"""A hidden bit is read where the target carries it into later tokens, and nowhere else.

A tiny target learns to reply "yes" under some system prompts and "no" under others. A decoder to
which the prompt is hidden must tell which. In a second target no attention moves anything before
the read layer, so that its visible tokens cannot carry the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import chain
import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from activation_store.layout.config import CaptureConfig
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.tokens.tokens import tokenize
from activation_store.write.dump import dump
from core.records.estimate import Estimate
from core.records.tables import Conversation, Message, Question, Split, example_id
from decoder.config import DecoderConfig, LoraSettings
from decoder.sources.step_inputs import StepInputs
from evaluators.config import EvaluateConfig
from evaluators.evaluation import TrainedDecoders, evaluate
from trainers.config import TrainConfig
from trainers.training import train

READ_LAYER = 2
CONTROLS = 40
"""Half of them mean yes, half of them no; the text shows which to those who see it."""
REPLIES = ("yes", "no")


def control(number: int) -> str:
    return f"{'+-'[number % 2]} {'abcdefghijklmnopqrst'[number // 2]}"


def messages(number: int, stimulus: str, reply: str | None = None) -> list[Message]:
    said = [
        Message(role="system", content=control(number), segment="control"),
        Message(role="user", content=stimulus, segment="stimulus"),
    ]
    if reply is not None:
        said.append(Message(role="assistant", content=reply, segment="completion"))
    return said


def save_target(folder: Path, *, carries: bool) -> ModelFiles:
    """Train a tiny model to reply as its system prompt means; or make it deaf up to READ_LAYER."""
    torch.manual_seed(0)
    net, tokenizer, draw = tiny.model(0), tiny.tokenizer(), Random(0)
    assert isinstance(net, LlamaForCausalLM)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(100 if carries else 0):
        rows = []
        for _ in range(16):
            number = draw.randrange(CONTROLS)
            said = messages(number, _stimulus(draw), REPLIES[number % 2])
            rows.append(tokenize(tokenizer, said))
        width = max(len(row.ids) for row in rows)
        ids = np.zeros((len(rows), width), np.int64)
        target = np.full((len(rows), width), -100)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            reply = row.segments == 3
            target[i, : len(row.ids)][reply] = row.ids[reply]
        logits = net(input_ids=torch.from_numpy(ids)).logits[:, :-1]
        wanted = torch.from_numpy(target)[:, 1:]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), wanted.reshape(-1))
        torch.autograd.backward(loss)
        optimiser.step()
        optimiser.zero_grad()
    if not carries:
        with torch.no_grad():
            for block in net.model.layers[: READ_LAYER + 1]:
                block.self_attn.o_proj.weight.zero_()
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve_model(str(folder))


def _stimulus(draw: Random) -> str:
    return "".join(draw.choice("mnopq") for _ in range(4))


def rows() -> list[tuple[Conversation, list[Question]]]:
    """Rows of every control with stimuli of its own; the last controls are held out."""
    draw, out = Random(1), []
    for number in range(CONTROLS):
        split: Split = "train" if number < 24 else "validation" if number < 28 else "test"
        for _ in range(4):
            said = messages(number, _stimulus(draw))
            own = example_id(control(number), "system", said)
            conversation = Conversation(
                example_id=own,
                control_id=f"control {number:02}",
                group_id=f"group {number}",
                kind="persona",
                category="bit",
                label=control(number),
                view="system",
                split=split,
                source="test",
                messages=tuple(said),
            )
            asked = Question(example_id=own, question="Which?", answer=REPLIES[number % 2])
            out.append((conversation, [asked]))
    return out


def read_hidden_bit(
    folder: Path, table: Sequence[tuple[Conversation, list[Question]]], carries: bool
) -> dict[str, Estimate]:
    """Dump, train and evaluate; return accuracy of identification and the hidden gain."""
    torch.set_num_threads(1)
    model = save_target(folder / "model", carries=carries)
    tables, store = folder / "tables", folder / "store"
    for path in (tables, store, *(folder / name for name in ("d", "dw", "e", "ew"))):
        path.mkdir()
    chain.write_tables(tables, table)
    capture = CaptureConfig(layers=(READ_LAYER,), store_dtype="float32")
    dump(tables, store, config=capture, model=model, runtime=chain.RUNTIME)
    inputs = StepInputs(conversations=tables, questions=tables, store=store, model=model)
    config = TrainConfig(
        decoder=DecoderConfig(normalisation="standardise"),
        lora=LoraSettings(rank=8),
        views=("system",),
        epochs=6,
        evaluations=2,
        learning_rate=1e-2,
    )
    train(inputs, folder / "d", folder / "dw", config=config, runtime=chain.RUNTIME)
    found = evaluate(
        inputs,
        TrainedDecoders(decoder=folder / "d"),
        folder / "e",
        folder / "ew",
        config=EvaluateConfig(
            splits=("test",),
            views=("system",),
            conditions=("right", "other", "swapped"),
            answers=0,
            identification=2,
            bootstrap=200,
        ),
        runtime=chain.RUNTIME,
    )
    own = found.reading["test"]["system"]
    assert own.identification is not None
    assert own.hidden_gain is not None
    return {**own.identification.accuracy, "hidden_gain": own.hidden_gain}


@pytest.mark.parametrize("carries", [True, False])
def test_a_hidden_bit_is_read_only_where_the_target_carries_it(
    tmp_path: Path, carries: bool
) -> None:
    measured = read_hidden_bit(tmp_path, rows(), carries)
    found = {name: estimate.model_dump() for name, estimate in measured.items()}
    if carries:
        assert found["right"]["estimate"] > 0.9
        assert found["swapped"]["estimate"] < 0.8  # half of the other controls mean the same
        assert found["hidden_gain"]["low"] > 0
    else:
        assert 0.3 < found["right"]["estimate"] < 0.7
        assert found["hidden_gain"]["estimate"] == pytest.approx(0, abs=1e-3)
