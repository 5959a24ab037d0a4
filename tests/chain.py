"""The whole chain at a tiny size: conversations with questions, and a store of them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from activation_store.layout.config import CaptureConfig
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.model_files.quiet import quiet_libraries
from activation_store.read.reader import ActivationStore
from activation_store.write.dump import dump
from core.records.table_files import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    write_conversations,
    write_questions,
)
from core.records.tables import Conversation, Message, Question, Split, View, control_id, example_id
from core.runtime import Runtime
from decoder.binding import Binding
from decoder.config import DecoderConfig, LoraSettings
from decoder.model import Decoder
from decoder.sources.step_inputs import StepInputs
from trainers.config import LOG_FILE

RUNTIME = Runtime(device="cpu", threads=1)
LAYER = 2
COLOURS = ("red", "blue", "green", "grey", "pink", "gold", "teal", "tan")
SPLITS: Mapping[Split, int] = {"train": 16, "validation": 8, "test": 12}
"""Controls of each split."""
CAPTURE = CaptureConfig(layers=(LAYER,), store_dtype="float32", shard_rows=256, chunk_rows=64)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Folders of one tiny data set and its store."""

    conversations: Path
    questions: Path
    store: Path
    model: ModelFiles

    def inputs(self, **changes: Any) -> StepInputs:
        """Return what steps on a decoder take."""
        own: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return StepInputs(**own | changes)

    def places(self, folder: Path, **changes: Any) -> tuple[StepInputs, Path, Path]:
        """Return inputs, `out` and `work` below `folder`; make what is missing."""
        for name in ("out", "work"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return self.inputs(**changes), folder / "out", folder / "work"


def messages(view: View, control: str, stimulus: str) -> tuple[Message, ...]:
    """Return the conversation of one view."""
    said = Message(role="user", content=stimulus, segment="stimulus")
    if view == "control":
        return (Message(role="user", content=control, segment="control"),)
    if view == "system":
        return (Message(role="system", content=control, segment="control"), said)
    return (
        Message(role="user", content=control, segment="control"),
        Message(role="assistant", content="Fine.", segment="control"),
        said,
    )


def row(
    number: int, *, split: Split = "train", view: View = "control", kind: str = "persona"
) -> tuple[Conversation, list[Question]]:
    """Make a conversation about a colour, and two questions about it.

    Another number, another group.
    """
    colour = COLOURS[number % len(COLOURS)]
    control = f"You love {colour}{'!' * (number // len(COLOURS))}"
    said = messages(view, control, "Hi" + "." * (number % 3))
    own = example_id(control, view, said)
    conversation = Conversation(
        example_id=own,
        control_id=control_id(kind, control),
        group_id=f"group {number}",
        kind=kind,
        category=colour,
        label=control,
        view=view,
        split=split,
        source="test",
        messages=said,
    )
    asked = [
        Question(example_id=own, question="Which?", answer=colour),
        Question(example_id=own, question="Loves it?", answer="yes"),
    ]
    return conversation, asked


def rows_of(
    views: Sequence[View] = ("control",), splits: Mapping[Split, int] = SPLITS
) -> list[tuple[Conversation, list[Question]]]:
    """Return controls of each split, each in each view, every fourth of kind `goal`."""
    out, number = [], 0
    for split, controls in splits.items():
        for _ in range(controls):
            kind = "goal" if number % 4 == 3 else "persona"
            out += [row(number, split=split, view=view, kind=kind) for view in views]
            number += 1
    return out


def write_tables(folder: Path, rows: Sequence[tuple[Conversation, list[Question]]]) -> None:
    """Both Parquet tables of `rows` into `folder`."""
    write_conversations(folder / CONVERSATIONS_FILE, [conversation for conversation, _ in rows])
    write_questions(folder / QUESTIONS_FILE, [q for _, asked in rows for q in asked])


def model(seed: int = 0) -> ModelFiles:
    """Make a tiny model on disk, the same for all tests of one process."""
    return _model(seed)


@functools.cache
def _model(seed: int) -> ModelFiles:
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return resolve_model(str(tiny.save(folder, seed=seed)))


def make(
    folder: Path,
    rows: Sequence[tuple[Conversation, list[Question]]] | None = None,
    *,
    seed: int = 0,
    **capture: Any,
) -> Chain:
    """Write the tables of `rows` below `folder` and dump them."""
    torch.set_num_threads(1)
    tables, store = folder / "tables", folder / "store"
    tables.mkdir(parents=True)
    store.mkdir()
    write_tables(tables, rows_of() if rows is None else rows)
    config = CAPTURE.model_copy(update=capture)
    dump(tables, store, config=config, model=model(seed), runtime=RUNTIME)
    return Chain(conversations=tables, questions=tables, store=store, model=model(seed))


def decoder(chain: Chain, *, seed: int = 0, nudge: float = 0.0, **config: Any) -> Decoder:
    """Make an untrained decoder for `chain`; `nudge` moves its adapter away from nothing."""
    store = ActivationStore(chain.store)
    with quiet_libraries():
        made = Decoder.create(
            chain.model,
            config=DecoderConfig(**{"normalisation": "none", **config}),
            lora=LoraSettings(rank=4),
            binding=Binding(read_layer=LAYER, target=store.plan["target"], model=chain.model.ref),
            dtype="float32",
            device=torch.device("cpu"),
            seed=seed,
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in made.net.named_parameters():
            if "lora_B" in name:
                values += nudge * torch.randn(values.shape, generator=generator)
    return made


def log(folder: Path) -> list[dict[str, Any]]:
    """Read the log of a training whose outputs are in `folder`/out."""
    return [json.loads(line) for line in (folder / "out" / LOG_FILE).read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    """Read its training and validation losses, in the order of the log."""
    return [line.get("loss", line.get("validation", {}).get("right")) for line in log(folder)]


def run_and_die(function: Callable[..., Any], die_at: int, /, *args: Any, **kwargs: Any) -> None:
    """Run a step in this process, which SIGKILLs itself when the step's progress says `die_at`."""

    def progress(done: int, total: int, note: str = "") -> None:
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    function(*args, **kwargs, progress=progress)


def fork_context() -> ForkServerContext:
    """Return a context of processes that start at once: forks of one with all imports."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["trainers.training", "evaluators.evaluation", "generators.llm.request_tasks", "peft"]
    )
    return context


@contextlib.contextmanager
def forked_processes() -> Iterator[None]:
    """Fork the processes of a pool, or of training together, which else start Python anew.

    Each takes seconds less. That they are started anew is tested in tests/core.
    """
    plain, forks = multiprocessing.get_context, fork_context()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            multiprocessing,
            "get_context",
            lambda method=None: forks if method == "spawn" else plain(method),
        )
        yield


def killed(function: Callable[..., Any], die_at: int, /, *args: Any, **kwargs: Any) -> None:
    """Run a step in a process of its own that dies by SIGKILL at `die_at`."""
    child = fork_context().Process(
        target=run_and_die, args=(function, die_at, *args), kwargs=kwargs, daemon=True
    )
    child.start()
    child.join(280)
    assert child.exitcode == -signal.SIGKILL, child.exitcode
