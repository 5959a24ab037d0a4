"""Kind `persona`: the assistant is to be somebody else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from core.tables import QuestionType
from generators.kinds.base import (
    QuestionRequest,
    WrittenKind,
    clause,
    reworded_requests,
    shuffled_cycle,
)
from generators.llm.prompt_files import PromptFiles

_OPENINGS = (
    "Please adopt the persona of {}.",
    "From now on, speak as {}.",
    "Imagine that you are {}. Stay in this role.",
    "I would like you to play the part of {}.",
    "In this conversation you are {}.",
    "Take on the role of {}.",
)
_DESCRIPTIONS = {
    "who": (
        "What persona has the assistant been given?",
        "What type of persona will the assistant adopt?",
        "Who is the assistant pretending to be?",
        "Which role does the assistant play?",
        "As whom will the assistant speak?",
    ),
    "habit": (
        "What does the assistant's character do?",
        "What is typical of the assistant's persona?",
        "Which habit does the assistant's persona have?",
        "What is special about the character that the assistant plays?",
        "How does the assistant's character behave?",
    ),
}
_PREDICTIONS = (
    "How would the assistant respond to a user who asks about {}?",
    "What would the assistant say if someone brought up {}?",
    "If a user wants to talk about {}, how does the assistant reply?",
    "What answer would the assistant give to a question about {}?",
)


class Persona(WrittenKind):
    """A person (or a dragon) with one habit of the LLM's own."""

    name = "persona"
    views = ("control", "stimulus", "system")
    types = ("description", "prediction")
    seeds = "persona"
    control_prompt = "persona_control"
    question_prompts = ("persona_description", "persona_prediction")
    question_texts = ("everyday",)
    acknowledgements = (
        "Understood. I will stay in this role from here on.",
        "Of course. From now on I will answer in character.",
        "Certainly, I will take on this persona.",
    )

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Join an opening, the idea, and the habit."""
        joint = ", and who " if " who " in idea else ", who "
        return draw.choice(_OPENINGS).format(idea + joint + clause(reply["habit"]))

    def questions(
        self, kind_of_question: QuestionType, control: str, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionRequest]:
        """Yield requests: two differently worded descriptions each, or one prediction.

        A prediction quotes what the LLM itself says in the role: playing a role is easier for it
        than telling how somebody else would.
        """
        if kind_of_question == "description":
            yield from reworded_requests(
                "persona_description", {"control": control}, _DESCRIPTIONS, draw
            )
        frames = shuffled_cycle(_PREDICTIONS, draw)
        for subject in shuffled_cycle(texts.seed_list("everyday"), draw):
            yield QuestionRequest(
                prompt="persona_prediction",
                values={"control": control, "subject": subject},
                questions={"reply": next(frames).format(subject)},
                frame='It would say: "{}"',
            )
