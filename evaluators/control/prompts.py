"""Ordinary prompts on which steering is made, tuned and judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import ConfigError, DataError
from evaluators.control.config import ControlSection
from generators.llm.prompt_files import PromptFiles

_UNRELATED = "Tell me about {}."


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSets:
    """Ordinary things that users say, for making, choosing and judging.

    Attributes:
        train: from which methods are made.
        validation: on which strengths are chosen.
        test: on which methods are judged.
        unrelated: to which a target whose weights change is held (`weights.kl_weight`).
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unrelated: tuple[str, ...] = ()


def draw_prompts(config: ControlSection) -> PromptSets:
    """Draw prompts from the packaged ones, or from `config.prompts`, each into one set.

    Raises:
        ConfigError: the file of prompts is missing or cannot be read.
        DataError: there are fewer prompts than the sets need.
    """
    texts = PromptFiles()
    if config.prompts is None:
        messages, where = texts.seed_list("steering_prompts"), "the packaged file"
    else:
        messages, where = _read(config.prompts), config.prompts
    sizes = (config.train_prompts, config.validation_prompts, config.test_prompts)
    if sum(sizes) > len(messages):
        raise DataError(
            f"control: train, validation and test prompts are {sum(sizes)} together, but {where} "
            f"has {len(messages)}. Ask for fewer, or name a file with more in control.prompts."
        )
    order = np.random.default_rng(config.seed).permutation(len(messages))
    chosen = [messages[i] for i in order]
    first, second = sizes[0], sizes[0] + sizes[1]
    return PromptSets(
        train=tuple(chosen[:first]),
        validation=tuple(chosen[first:second]),
        test=tuple(chosen[second : sum(sizes)]),
        unrelated=tuple(_UNRELATED.format(subject) for subject in texts.seed_list("everyday")),
    )


def _read(name: str) -> list[str]:
    """Read the distinct prompts of a text file, one a line."""
    try:
        lines = Path(name).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"control.prompts: {name} cannot be read ({error}); expected a UTF-8 text file with "
            "one prompt a line."
        ) from None
    return list(dict.fromkeys(stripped for line in lines if (stripped := line.strip())))
