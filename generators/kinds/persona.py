"""Kind `persona`: the assistant plays a person or a creature."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from generators.kinds.base import DescribedKind, QuestionRequest, clause

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


class Persona(DescribedKind):
    """A person (or a dragon) with one habit of the LLM's own."""

    name = "persona"
    views = ("control", "stimulus", "system")
    seeds = "persona"
    control_prompt = "persona_control"
    question_prompts = ("persona_description", "persona_prediction")
    descriptions = _DESCRIPTIONS
    predictions = _PREDICTIONS
    acknowledgements = (
        "Understood. I will stay in this role from here on.",
        "Of course. From now on I will answer in character.",
        "Certainly, I will take on this persona.",
    )

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Join an opening, the idea, and the habit."""
        joint = ", and who " if " who " in idea else ", who "
        return draw.choice(_OPENINGS).format(idea + joint + clause(reply["habit"]))

    def prediction(self, control: str, subject: str, question: str) -> QuestionRequest:
        """Make the request, for what the LLM itself says in the role.

        Playing a role is easier for it than telling how somebody else would.
        """
        return QuestionRequest(
            prompt="persona_prediction",
            values={"control": control, "subject": subject},
            questions={"reply": question},
            frame='It would say: "{}"',
        )
