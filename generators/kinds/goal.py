"""Kind `goal`: the assistant is to answer in a certain way, or to a certain end."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from generators.kinds.base import DescribedKind, QuestionRequest, clause

_OPENINGS = (
    "In all of your answers, please {}",
    "Please {} from now on",
    "Your aim in this conversation is to {}",
    "Please make every effort to {}",
    "Whatever I ask, {}",
    "I want you to {}",
)
_DESCRIPTIONS = {
    "aim": (
        "What is the assistant trying to do?",
        "What goal has the assistant been given?",
        "What has the assistant been told to do in its answers?",
        "Which instruction does the assistant follow?",
        "What does the assistant aim for?",
    ),
    "reason": (
        "Why has the assistant been given its goal?",
        "What is the reason for the assistant's instruction?",
        "Why does the assistant answer in this way?",
        "What lies behind the assistant's goal?",
        "For what reason does the assistant follow its instruction?",
    ),
}
_PREDICTIONS = (
    "How would the assistant answer a user who asks about {}?",
    "What would the assistant's reply to a message about {} be like?",
    "If someone brings up {}, how will the assistant respond?",
    "In what way would the assistant talk about {}?",
)


class Goal(DescribedKind):
    """An instruction about the answers, with a reason of the LLM's own."""

    name = "goal"
    views = ("control", "stimulus", "system")
    seeds = "goal"
    control_prompt = "goal_control"
    question_prompts = ("goal_description", "goal_prediction")
    descriptions = _DESCRIPTIONS
    predictions = _PREDICTIONS
    acknowledgements = (
        "Understood. I will keep to that in what follows.",
        "Certainly, I will do so in my answers.",
        "Of course. I will follow this from now on.",
    )

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Join an opening, the aim, and the reason."""
        return f"{draw.choice(_OPENINGS).format(idea)}, because {clause(reply['reason'])}."

    def prediction(self, control: str, subject: str, question: str) -> QuestionRequest:
        """Make the request; the reason would only distract from what answers are to be like."""
        return QuestionRequest(
            prompt="goal_prediction",
            values={"instruction": control.partition(", because ")[0], "subject": subject},
            questions={"answer": question},
        )
