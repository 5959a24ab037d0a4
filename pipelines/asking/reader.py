"""Readers: a decoder with its target, asked about the activations of any conversation.

Shapes: n tokens that are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from core.config import Config
from core.errors import ConfigError, DataError, UserError
from core.records.tables import Message
from decoder.asking import Answer, generate_answers
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.sources.target_run import CapturedConversation, TargetNetwork, capture
from decoder.sources.token_choice import VISIBLE, choose_tokens
from decoder.sources.training_distribution import ActivationOODDetector, OODScore
from decoder.visible_tokens import ReadLayers, count_withheld
from pipelines.asking.conversations import (
    ChatMessages,
    conversation_from_messages,
    conversation_from_texts,
)
from pipelines.asking.results import AskResult, Prompt


class AskOptions(Config):
    """How a decoder is asked."""

    layer: int | None = Field(default=None, ge=-1)
    """Block whose output is read, -1 for the last; null takes the one that the decoder was trained
    on."""
    max_tokens: int = Field(default=40, ge=1)
    """Longest answer, in tokens."""
    samples: int = Field(default=0, ge=0)
    """Answers drawn per question in addition to the greedy one."""
    temperature: float = Field(default=0.7, gt=0)
    """Sampling temperature of these answers."""
    seed: int = 0
    """Seed of sampling."""


def make_prompt(
    prompt: str | ChatMessages,
    questions: Sequence[str],
    *,
    system: str | None = None,
    stimulus: str | None = None,
    tokens: str = VISIBLE,
) -> Prompt:
    """Make a prompt for `Reader.ask_each` from what `Reader.ask_all` takes.

    Args:
        prompt: text, or the messages of a chat.
        questions: at least one.
        system: a system prompt before a text.
        stimulus: what the user says after a text.
        tokens: which tokens are read (decoder/sources/token_choice.py).

    Raises:
        DataError: a text is empty.
        ConfigError: options that do not go together.
    """
    if not questions or not all(question.strip() for question in questions):
        raise DataError("ask: a question is empty; expected some text.")
    if isinstance(prompt, str):
        view, messages = conversation_from_texts(prompt, system=system, stimulus=stimulus)
    elif system is not None or stimulus is not None:
        raise ConfigError(
            "ask: got a whole dialogue together with a system prompt or stimulus, expected "
            "the dialogue alone. Put them into the dialogue."
        )
    else:
        view, messages = conversation_from_messages(prompt)
    return Prompt(view=view, messages=messages, questions=tuple(questions), tokens=tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedForeignTarget:
    """A target that the decoder was not trained to read.

    Attributes:
        model, adapter: references under which it was found.
        differs: what is not as in the decoder's own target (`weights`, `adapter`, ...).
        source: the network and its tokenizer.
    """

    model: str
    adapter: str | None
    differs: tuple[str, ...]
    source: TargetNetwork

    def to_json(self) -> dict[str, Any]:
        """Return what every result says of it."""
        return {"model": self.model, "adapter": self.adapter, "differs": list(self.differs)}


@dataclass(eq=False)
class Reader:
    """A decoder with its target."""

    name: str
    """The decoder's artifact, or its folder."""
    decoder: Decoder
    """The decoder itself; its target is the same network with the adapter off."""
    foreign: LoadedForeignTarget | None = field(default=None, kw_only=True)
    """Another target, whose activations are read in place of its own; or None."""
    find_ood_detector: Callable[[], ActivationOODDetector | None] = field(
        default=lambda: None, kw_only=True
    )
    """Finds the detector of the decoder's training activations, or None; called once at most."""

    @functools.cached_property
    def ood_detector(self) -> ActivationOODDetector | None:
        """Out-of-distribution detector; None where the training activations are not available."""
        return self.find_ood_detector()

    def capture(
        self, conversations: Sequence[Sequence[Message]], layers: Sequence[int]
    ) -> list[CapturedConversation]:
        """Run the target on conversations and capture activations of `layers`.

        Raises:
            DataError: the template refuses a conversation, or it holds a control token.
        """
        source = None if self.foreign is None else self.foreign.source
        return capture(self.decoder, conversations, layers, source=source)

    def ask(
        self,
        prompt: str | ChatMessages,
        question: str,
        *,
        system: str | None = None,
        stimulus: str | None = None,
        tokens: str = VISIBLE,
        **options: Any,
    ) -> str:
        """Answer one question; `ask_all` takes several, and returns more.

        Args:
            prompt: what a user says to the target; alone, it is the control (view `control`), and
                all its activations are read. Or a whole dialogue: a list of {"role", "content"}
                with an optional "segment" (pipelines/asking/conversations.py).
            question: asked of the decoder, which sees activations and no text of the target's.
            system: a system prompt before `prompt` (view `system`): the control is then here, and
                a decoder with masking reads the activations of what follows it alone.
            stimulus: what the user says next (view `stimulus`), after the target has acknowledged
                `prompt`; likewise masked.
            tokens: which tokens are read: `visible`, `all`, `segment:NAME`, `range:START:STOP`,
                `match:REGEX` or `last:N` (decoder/sources/token_choice.py).
            options: fields of `AskOptions`: layer, max_tokens, samples, temperature, seed.

        Raises:
            DataError: a text is empty, holds one of the model's control tokens, or `tokens` names
                none of the conversation's.
            ConfigError: an option is wrong, or does not go with another.
        """
        asked = self.ask_all(
            prompt, [question], system=system, stimulus=stimulus, tokens=tokens, **options
        )
        return asked.answers[0].text

    def ask_all(
        self,
        prompt: str | ChatMessages,
        questions: Sequence[str],
        *,
        system: str | None = None,
        stimulus: str | None = None,
        tokens: str = VISIBLE,
        **options: Any,
    ) -> AskResult:
        """Answer several questions about one prompt, on which the target runs once.

        Args:
            prompt, system, stimulus, tokens, options: as for `ask`.
            questions: at least one.

        Raises: as `ask`.
        """
        made = make_prompt(prompt, questions, system=system, stimulus=stimulus, tokens=tokens)
        return self.ask_prompt(made, AskOptions(**options))

    def ask_prompt(self, prompt: Prompt, options: AskOptions | None = None) -> AskResult:
        """Answer the questions of one prompt.

        Args:
            prompt: the conversation and its questions.
            options: how it is asked; None takes the defaults.

        Raises: as `ask`.
        """
        (found,) = self.ask_each([prompt], options)
        if isinstance(found, UserError):
            raise found
        return found

    def ask_each(
        self, prompts: Sequence[Prompt], options: AskOptions | None = None, *, batch: int = 16
    ) -> Iterator[AskResult | UserError]:
        """Answer the questions of each prompt, in order.

        A prompt that cannot be asked gives the error that says why, and the others go on.

        Args:
            prompts: conversations and their questions.
            options: how they are asked; None takes the defaults.
            batch: prompts that are asked together.

        Raises:
            ModelError: the target has no block `options.layer`.
            ConfigError: the decoder reads several layers together, so that none can be named.
        """
        options = options or AskOptions()
        layers = self.layers(options.layer)
        for start in range(0, len(prompts), batch):
            yield from self._ask_batch(prompts[start : start + batch], layers, options)

    def layers(self, layer: int | None = None, option: str = "--layer") -> ReadLayers:
        """Select the layers of one reading; any block of the target can be read.

        Args:
            layer: None takes those that the decoder was trained on.
            option: what `layer` is called in an error.

        Raises:
            ModelError: the target has no such block.
            ConfigError: the decoder reads several layers together, so that none can be named.
        """
        decoder = self.decoder
        if layer is None:
            return decoder.select_layers()
        number = decoder.shape.layer(layer, option)
        if decoder.config.combine == "concatenated" and decoder.config.read_layers:
            return decoder.select_layers(number)
        return ReadLayers((number,), named=bool(decoder.config.read_layers))

    @property
    def trained_layers(self) -> tuple[int, ...]:
        """Blocks that the decoder was trained on."""
        return self.decoder.layers

    def choose_tokens(
        self, prompt: Prompt, captured: CapturedConversation
    ) -> tuple[np.ndarray, int]:
        """Find the tokens [n] that `prompt` names, and count those that masking withholds.

        Raises:
            DataError: it names none.
            ConfigError: `prompt.tokens` is none of the forms.
        """
        tokens, masking = captured.tokens, self.decoder.config.masking
        chosen = choose_tokens(
            prompt.tokens,
            tokens,
            captured.encoded,
            withheld=captured.count_withheld(prompt.view, masking=masking),
        )
        withheld = count_withheld(prompt.view, tokens.withheld, masking=masking)
        return chosen, int((chosen < withheld).sum())

    def _ask_batch(
        self, prompts: Sequence[Prompt], layers: ReadLayers, options: AskOptions
    ) -> list[AskResult | UserError]:
        out: dict[int, AskResult | UserError] = {}
        ready: dict[int, tuple[CapturedConversation, np.ndarray, int]] = {}
        for i, found in enumerate(self._capture(prompts, layers)):
            if isinstance(found, UserError):
                out[i] = found
                continue
            try:
                ready[i] = (found, *self.choose_tokens(prompts[i], found))
                for question in prompts[i].questions:
                    self.decoder.prompt.turn(question, None)
            except UserError as error:
                ready.pop(i, None)
                out[i] = error
        asked = [(i, question) for i in ready for question in prompts[i].questions]
        readings = {
            i: captured.reading(layers, chosen) for i, (captured, chosen, _) in ready.items()
        }
        likeliest = options.model_copy(update={"samples": 1, "temperature": 0.0})
        answers, drawn = (self._answers(asked, readings, how) for how in (likeliest, options))
        for i, (captured, chosen, withheld) in ready.items():
            mine = [j for j, (of, _) in enumerate(asked) if of == i]
            out[i] = AskResult(
                prompt=prompts[i],
                layers=layers.layers,
                activations=len(chosen),
                length=len(captured.tokens.ids),
                withheld=withheld,
                answers=tuple(answers[j][0] for j in mine),
                samples=tuple(tuple(drawn[j]) for j in mine),
                ood=self._score_ood(readings[i]),
            )
        return [out[i] for i in range(len(prompts))]

    def _capture(
        self, prompts: Sequence[Prompt], layers: ReadLayers
    ) -> list[CapturedConversation | UserError]:
        """Capture each conversation, or return why the template refuses it."""
        try:
            return list(self.capture([p.messages for p in prompts], layers.layers))
        except DataError as error:
            if len(prompts) == 1:
                return [error]
        # one is refused: each by itself says which
        return [found for prompt in prompts for found in self._capture([prompt], layers)]

    def _score_ood(self, reading: Reading) -> OODScore | None:
        """Measure how far a reading lies from what the decoder was trained on."""
        vectors = reading.array
        if self.ood_detector is None or vectors is None:
            return None
        # of several layers the first, which is the one that is known
        return self.ood_detector.score(vectors[: reading.n])

    def _answers(
        self, asked: Sequence[tuple[int, str]], readings: dict[int, Reading], options: AskOptions
    ) -> list[list[Answer]]:
        """Answer each question `options.samples` times."""
        times = options.samples
        if not asked or not times:
            return [[] for _ in asked]
        found = generate_answers(
            self.decoder,
            [readings[i] for i, _ in asked for _ in range(times)],
            [question for _, question in asked for _ in range(times)],
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )
        return [found[j * times : (j + 1) * times] for j in range(len(asked))]
