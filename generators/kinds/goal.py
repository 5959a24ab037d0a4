"""Kind `goal`: the assistant is to answer in a certain way, or to a certain end."""

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


class Goal(WrittenKind):
    """An instruction about the answers, with a reason of the LLM's own."""

    name = "goal"
    views = ("control", "stimulus", "system")
    types = ("description", "prediction")
    seeds = "goal"
    control_prompt = "goal_control"
    question_prompts = ("goal_description", "goal_prediction")
    question_texts = ("everyday",)
    acknowledgements = (
        "Understood. I will keep to that in what follows.",
        "Certainly, I will do so in my answers.",
        "Of course. I will follow this from now on.",
    )

    def control(self, idea: str, reply: Mapping[str, Any], draw: Random) -> str:
        """Join an opening, the aim, and the reason."""
        return f"{draw.choice(_OPENINGS).format(idea)}, because {clause(reply['reason'])}."

    def questions(
        self, kind_of_question: QuestionType, control: str, texts: PromptFiles, draw: Random
    ) -> Iterator[QuestionRequest]:
        """Yield requests: two differently worded descriptions each, or one prediction."""
        if kind_of_question == "description":
            yield from reworded_requests(
                "goal_description", {"control": control}, _DESCRIPTIONS, draw
            )
        frames = shuffled_cycle(_PREDICTIONS, draw)
        # the reason would only distract from what the answers are to be like
        instruction = control.partition(", because ")[0]
        for subject in shuffled_cycle(texts.seed_list("everyday"), draw):
            yield QuestionRequest(
                prompt="goal_prediction",
                values={"instruction": instruction, "subject": subject},
                questions={"answer": next(frames).format(subject)},
            )
