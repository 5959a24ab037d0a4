"""Settings of the reading tasks."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from activation_store.layout.config import Layer
from activation_store.target.number_format import ComputeConfig
from core.config import Config
from evaluators.config import JudgeConfig

PredictorName = Literal[
    "lit",
    "probe",
    "neighbour",
    "patchscope",
    "selfie",
    "swapped",
    "prior",
    "visible_text",
    "none",
    "asking",
]
PREDICTOR_NAMES: tuple[PredictorName, ...] = get_args(PredictorName)
"""In the order in which they are shown."""


class SubjectShares(Config):
    """Shares of a task's subjects, drawn by hash; each subject is in one part."""

    train: float = Field(default=0.2, gt=0, lt=1)
    """Share that the probe, the nearest neighbour and few-shot prompts learn from. Subjects that
    the other parts do not use (unknown to the target, or beyond their maximum) are added to it."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share on which each method's settings are chosen; the remaining subjects are the test."""

    @model_validator(mode="after")
    def _leave_a_test(self) -> SubjectShares:
        if self.train + self.validation >= 1:
            raise ValueError(
                f"got train {self.train} and validation {self.validation}, expected less than 1 "
                "together: the rest is the test"
            )
        return self


class ShiftConfig(Config):
    """Another model, whose activations the decoder reads with and without a linear map."""

    model: str | None = None
    """The other model; null takes the decoder's own target with `adapter`."""
    adapter: str | None = None
    """Folder or id of a PEFT adapter of the other model, such as a fine-tune; null for none."""
    layer: Layer | None = None
    """Block of the other model that is read; null takes the one at the depth of the decoder's read
    layer."""

    @model_validator(mode="after")
    def _another(self) -> ShiftConfig:
        if self.model is None and self.adapter is None:
            raise ValueError("expected a model, an adapter, or both")
        return self


Grade = Literal["direct", "negation", "comparison", "counting", "two_hop"]
"""How much a claim takes (evaluators/tasks/graded_task.py)."""


class PromptsConfig(Config):
    """Tasks that identify a hidden system prompt from activations of the visible text after it."""

    view: Literal["system", "stimulus", "stimulus_completion"] = "system"
    """View whose rows are read; the control is hidden."""
    splits: tuple[Literal["test", "test_ood", "test_seen"], ...] = ("test", "test_ood")
    """Splits, each a task: `test` has categories of training (easy), `test_ood` new ones (hard)."""
    decoys: bool = True
    """Whether each split also becomes a task in which the user quotes another of the controls to
    choose from."""
    max_controls: int = Field(default=40, ge=4)
    """Most controls of a task, drawn by hash, with one row each."""
    answer_tokens: int = Field(default=60, ge=1, le=100_000)
    """Longest written answer, in tokens; it is compared with the hidden text."""


class TasksConfig(ComputeConfig):
    """The reading tasks, and the methods that are compared on them."""

    relations: tuple[str, ...] = ()
    """Files of relations (TSV, CSV, JSON or JSON Lines), or folders of them. Each file is a task:
    read the object from the activation at the subject's last token."""
    grades: tuple[Grade, ...] = ()
    """Further tasks per relation, each with yes/no claims of one grade; `two_hop` needs a file
    whose subjects are the objects of another."""
    shift: ShiftConfig | None = None
    """Another model whose activations are read for each relation as well; null for none."""
    prompts: PromptsConfig | None = None
    """Tasks on hidden system prompts of the experiment's own conversations; null for none."""
    judge: JudgeConfig | None = None
    """LLM that judges the answers written about hidden prompts, in its own step; its `answers` is
    the most prompts per task. Null for none."""
    predictors: tuple[PredictorName, ...] = PREDICTOR_NAMES
    """Methods that are compared, each on the tasks it can answer; `prior` and `visible_text` only
    if `evaluate.baselines` has them."""
    layers: tuple[Layer, ...] = ()
    """Blocks that are read in addition to the decoder's; empty takes six, evenly spaced."""
    shares: SubjectShares = SubjectShares()
    """How a relation's subjects are divided; subjects of the decoder's own rows of kind `relation`
    stay in the split they have there."""
    max_subjects: int = Field(default=100, ge=1)
    """Most test subjects, drawn by hash from those that the target knows."""
    min_subjects: int = Field(default=30, ge=2)
    """Subjects below which a task is not measured."""
    validation_subjects: int = Field(default=20, ge=1)
    """Most validation subjects, drawn in the same way."""
    max_asked: int = Field(default=600, ge=1)
    """Most subjects per part that the target is asked about, to find those it knows."""
    train_subjects: int = Field(default=400, ge=1)
    """Most subjects that the probe, the nearest neighbour and few-shot prompts learn from."""
    train_sources: int = Field(default=4, ge=1)
    """Most source texts per training subject; test subjects have one each."""
    answer_tokens: int = Field(default=20, ge=1, le=100_000)
    """Longest written answer, in tokens; it has to name the object."""
    bootstrap: int = Field(default=10_000, ge=100, le=100_000)
    """Bootstrap samples for each interval."""
    min_intervals: int = Field(default=8, ge=2)
    """Subjects, or groups of four, below which an estimate has no interval."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of shares, sources, options and bootstrap."""

    @model_validator(mode="after")
    def _distinct(self) -> TasksConfig:
        for name in ("predictors", "layers", "grades"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: expected each once, got {list(values)}")
        if not self.predictors:
            raise ValueError("predictors: expected at least one")
        if self.judge is not None and self.prompts is None:
            raise ValueError("judge: what is judged is written about hidden prompts; set prompts")
        return self
