"""A tiny target that is written by hand: what its blocks write is known, and so is every answer.

Every token has a feature of its own. Block 1 looks a subject up (a capital letter) and writes the
feature of its object (a digit) beside it; block 2 carries such features to all later tokens, in
equal parts, those that were carried before above all; the head says the object that was carried
most, and ends its turn after a digit.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch

from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.model_files.quiet import quiet_libraries
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from evaluators.tasks.measure import PredictorAnswers, run_predictor
from evaluators.tasks.predictors.base import PredictorContext, PredictorKind
from evaluators.tasks.rows import TaskData

OBJECTS = "1234"
SUBJECTS = "BDEFGHJKLMNOPQRTUVWXZ"
"""Capital letters that stand in no prompt."""
LAYER = 2
_VOCABULARY = 320
_WIDTH = 336
_FEATURE, _CARRIED = 320, 326
"""First of the five features of objects and of the end, and of the four that are carried."""


def object_of(subject: str) -> str:
    return OBJECTS[SUBJECTS.index(subject) % len(OBJECTS)]


@functools.cache
def model() -> ModelFiles:
    """Write the model to a folder, the same for all tests of one process."""
    folder = Path(tempfile.mkdtemp(prefix="reading-"))
    tokenizer = tiny.tokenizer()
    _network(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve_model(str(folder))


def _network(tokenizer: Any) -> Any:
    net = tiny.model(
        hidden_size=_WIDTH,
        intermediate_size=64,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    end = len(OBJECTS)
    with torch.no_grad():
        for name, values in net.named_parameters():
            if "norm" not in name:
                values.zero_()
        net.model.embed_tokens.weight[:, :_VOCABULARY] = torch.eye(_VOCABULARY)
        lookup = net.model.layers[1].mlp
        known = [(subject, OBJECTS.index(object_of(subject)), 1.0) for subject in SUBJECTS]
        known += [(digit, end, 50.0) for digit in OBJECTS]
        for row, (text, feature, strength) in enumerate(known):
            lookup.gate_proj.weight[row, token(text)] = 1.0
            lookup.up_proj.weight[row, token(text)] = 1.0
            lookup.down_proj.weight[_FEATURE + feature, row] = strength / _WIDTH
        carry = net.model.layers[2].self_attn
        for feature in range(end):
            carry.v_proj.weight[feature, _FEATURE + feature] = 1.0
            # what was carried once weighs more than what a prompt's own capitals write
            carry.v_proj.weight[feature, _CARRIED + feature] = 5.0
            carry.o_proj.weight[_CARRIED + feature, feature] = 10.0
            net.lm_head.weight[token(OBJECTS[feature]), _CARRIED + feature] = 1.0
        net.lm_head.weight[token("<|im_end|>"), _FEATURE + end] = 1.0
    return net


def decoder(**config: Any) -> Decoder:
    """Make a decoder of that target, whose adapter changes nothing."""
    files = model()
    with quiet_libraries():
        return Decoder.create(
            files,
            config=DecoderConfig(**{"normalisation": "none", **config}),
            lora=LoraSettings(rank=2),
            binding=Binding(read_layer=LAYER, target=files.digests(), model=files.ref),
            dtype="float32",
            device=torch.device("cpu"),
            seed=0,
        )


def run(decoder: Decoder, data: TaskData, kind: PredictorKind) -> PredictorAnswers:
    """Run a method without trained baselines on a task."""
    predictor = kind.make(
        PredictorContext(
            decoder=decoder,
            baselines=(),
            data=data,
            answer_tokens=8,
        )
    )
    assert predictor is not None
    return run_predictor(predictor, kind.sees, data)


def write_relation(path: Path, subjects: str = SUBJECTS, **wrong: str) -> Path:
    """Write a relation file; `wrong` gives subjects another object than the target knows."""
    rows = [
        {
            "subject": subject,
            "object": wrong.get(subject, object_of(subject)),
            "prompt_source": f"we saw {subject} there",
            "prompt_target": "the number of x",
        }
        for subject in subjects
    ]
    path.write_text(json.dumps(rows))
    return path


def network() -> Any:
    """Make the target's network alone."""
    return _network(tiny.tokenizer()).eval()


def turned_network(seed: int = 0) -> Any:
    """Make a network that computes the same with its features in another order."""
    net = network()
    order = torch.randperm(_WIDTH, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, values in net.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                values.copy_(values[order])
            elif "norm" not in name:
                values.copy_(values[:, order])
    return net
