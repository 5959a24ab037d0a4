"""A trained decoder, ready to be asked about any prompt.

from pipelines.reader import load

reader = load("latentqa_eval")
reader.ask("You are a pirate.", "Who speaks here?")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from activation_store.model_files import ModelFiles, resolve_model
from activation_store.quiet import quiet_libraries
from activation_store.runtime import Runtime
from activation_store.target import pick_device
from decoder.asking import Answer, answer, capture_reading
from decoder.model import SIDECAR, Decoder, read_sidecar
from generators.errors import ConfigError, DamagedError, DataError, ModelError
from generators.schema import Message, View
from pipelines.artifacts import RECORD, ArtifactRoot
from pipelines.refs import Refs

ACKNOWLEDGEMENT = "Understood."
"""What the target is taken to have said to its control before a stimulus."""
MAX_TOKENS = 40
"""Longest answer, in tokens, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of one prompt, and answered.

    Attributes:
        view: the view that the target saw.
        messages: the conversation that the target ran on.
        activations: activations that the decoder was given; those of a masked control are not.
        answers: one a question, in order.
    """

    view: View
    messages: tuple[Message, ...]
    activations: int
    answers: tuple[Answer, ...]


class Reader:
    """A decoder with its target.

    Attributes:
        name: the decoder's artifact, or its folder.
        decoder: the decoder itself; its target is the same network with the adapter off.
    """

    def __init__(self, name: str, decoder: Decoder) -> None:
        self.name = name
        self.decoder = decoder

    def ask(
        self,
        prompt: str,
        question: str,
        *,
        system: str | None = None,
        stimulus: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> str:
        """The answer to one question; `ask_all` takes several, and says more.

        Args:
            prompt: what a user says to the target. Alone, it is the control (view `control`), and
                all its activations are read.
            question: asked of the decoder, which sees activations and no text of the target's.
            system: a system prompt before `prompt` (view `system`): the control is then here, and
                a decoder with masking reads the activations of what follows it alone.
            stimulus: what the user says next (view `stimulus`), after the target has acknowledged
                `prompt`; likewise masked.
            max_tokens: longest answer, in tokens.

        Raises:
            DataError: a text is empty or holds one of the model's control tokens.
            ConfigError: both `system` and `stimulus` are given.
        """
        asked = self.ask_all(
            prompt, [question], system=system, stimulus=stimulus, max_tokens=max_tokens
        )
        return asked.answers[0].text

    def ask_all(
        self,
        prompt: str,
        questions: Sequence[str],
        *,
        system: str | None = None,
        stimulus: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> Asked:
        """The answers to several questions about one prompt, which the target runs on once.

        Args:
            prompt, system, stimulus, max_tokens: as for `ask`.
            questions: at least one.

        Raises:
            DataError: a text is empty or holds one of the model's control tokens.
            ConfigError: both `system` and `stimulus` are given.
        """
        if not questions or not all(question.strip() for question in questions):
            raise DataError("ask: a question is empty; expected some text.")
        view, messages = conversation(prompt, system=system, stimulus=stimulus)
        reading = capture_reading(self.decoder, messages, view=view)
        found = answer(self.decoder, [reading] * len(questions), questions, max_tokens=max_tokens)
        return Asked(view, messages, reading.n, tuple(found))


def load(
    ref: str,
    *,
    root: Path | None = None,
    model: str | None = None,
    adapter: str | None = None,
    device: str = "auto",
) -> Reader:
    """The decoder that `ref` names, with its target.

    Args:
        ref: a REF of a train artifact (a path, kind/key-prefix or name[:version]), or a folder
            that a decoder was copied to.
        root: the artifact root; None takes `LATENTQA_ROOT`, else `artifacts`.
        model: where the target is now; None takes what the decoder was trained with.
        adapter: where the target's own adapter is now, likewise.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        ReferenceError_: `ref` names nothing, or no decoder.
        ModelError: the target is not where it was.
        StoreError: `model` is not the decoder's target.
        DamagedError: the decoder's bytes are not those committed.
    """
    found = _find(ref, root or Path(os.environ.get("LATENTQA_ROOT", "artifacts")))
    with quiet_libraries():
        decoder = Decoder.load(
            found.folder,
            _target(found, model, adapter),
            dtype="float32",
            device=pick_device(Runtime(device=device)),
        )
    return Reader(found.name, decoder)


def conversation(
    prompt: str, *, system: str | None = None, stimulus: str | None = None
) -> tuple[View, tuple[Message, ...]]:
    """The view that the texts make, and its messages (arXiv 2412.08686, section 3).

    Raises:
        DataError: a text is empty.
        ConfigError: both `system` and `stimulus` are given.
    """
    for what, text in (("prompt", prompt), ("system", system), ("stimulus", stimulus)):
        if text is not None and not text.strip():
            raise DataError(f"ask: the {what} is empty; expected some text.")
    if system is not None and stimulus is not None:
        raise ConfigError(
            "ask: got a system prompt and a stimulus, expected one of them. With a system prompt, "
            "the prompt is the stimulus already."
        )
    if system is not None:
        return "system", (
            Message(role="system", content=system, segment="control"),
            Message(role="user", content=prompt, segment="stimulus"),
        )
    control = Message(role="user", content=prompt, segment="control")
    if stimulus is None:
        return "control", (control,)
    return "stimulus", (
        control,
        Message(role="assistant", content=ACKNOWLEDGEMENT, segment="control"),
        Message(role="user", content=stimulus, segment="stimulus"),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A decoder on disk; `model` and `adapter` say where its target was."""

    name: str
    folder: Path
    model: str
    adapter: str | None


def _find(ref: str, root: Path) -> _Found:
    folder = Path(ref).expanduser()
    if (folder / SIDECAR).is_file() and not (folder.parent / RECORD).is_file():
        _, binding = read_sidecar(folder)
        return _Found(ref, folder, binding.model, binding.adapter)
    artifact = Refs(ArtifactRoot(root.expanduser())).resolve(ref, "train")
    if bad := artifact.damaged_files():
        raise DamagedError(
            f"{artifact.short}: {', '.join(bad)} is not as it was committed. "
            "Run the experiment again: it notices, and trains anew.",
            artifact.path,
        )
    # a decoder's own files name no folder of a machine, its record does
    where = artifact.record["locations"]
    return _Found(artifact.short, artifact.data, where["model"], where["adapter"])


def _target(found: _Found, model: str | None, adapter: str | None) -> ModelFiles:
    try:
        return resolve_model(model or found.model, adapter or found.adapter)
    except ModelError as error:
        if model is not None:
            raise
        raise ModelError(
            f"decoder {found.name}: its target is not where it was when it was trained: {error} "
            "Name it with --model."
        ) from error
