"""Settings of the reading tasks."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

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
    """Shares of a task's subjects, drawn by hash; a subject falls into one of them."""

    train: float = Field(default=0.2, gt=0, lt=1)
    """What the probe, the nearest neighbour and few-shot prompts learn from, beside all subjects of
    the other parts that these leave over: unknown to the target, or more than are asked."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Where each method's settings are chosen; what is left is the test."""

    @model_validator(mode="after")
    def _leave_a_test(self) -> SubjectShares:
        if self.train + self.validation >= 1:
            raise ValueError(
                f"got train {self.train} and validation {self.validation}, expected less than 1 "
                "together: the rest is the test"
            )
        return self


class ShiftConfig(Config):
    """Another model, whose activations the decoder reads through a linear map, and without one."""

    model: str | None = None
    """The other model; null takes the decoder's own target, to which `adapter` is applied."""
    adapter: str | None = None
    """Folder or id of a PEFT adapter of it, such as a fine-tune; null for none."""
    layer: int | None = Field(default=None, ge=0)
    """Block of it that is read; null takes that of the same depth as the decoder's."""

    @model_validator(mode="after")
    def _another(self) -> ShiftConfig:
        if self.model is None and self.adapter is None:
            raise ValueError("expected a model, an adapter, or both")
        return self


Grade = Literal["direct", "negation", "comparison", "counting", "two_hop"]
"""How much a claim takes (evaluators/tasks/graded_task.py)."""


class PromptsConfig(Config):
    """Hidden system prompts: told from the activations of what is visible after them."""

    view: Literal["system", "stimulus", "stimulus_completion"] = "system"
    """View whose rows are read, the control hidden."""
    splits: tuple[Literal["test", "test_ood", "test_seen"], ...] = ("test", "test_ood")
    """Splits, each a task: `test` has categories of training (easy), `test_ood` new ones (hard)."""
    decoys: bool = True
    """Whether each split is also a task in which the user quotes another control of the choice."""
    max_controls: int = Field(default=40, ge=4)
    """Most controls of a task, drawn by hash; one row of each."""
    answer_tokens: int = Field(default=60, ge=1)
    """Tokens of a written answer, which is compared with the hidden text."""


class TasksConfig(ComputeConfig):
    """The reading tasks, and the methods that are compared on them."""

    relations: tuple[str, ...] = ()
    """Files of relations (TSV or JSON), or folders of such; each file is a task: read the object
    off the activation at the subject's last token."""
    grades: tuple[Grade, ...] = ()
    """Grades at which each relation is asked too, by claims to be answered with yes or no, each a
    task of its own; `two_hop` where the objects of one file are subjects of another."""
    shift: ShiftConfig | None = None
    """Each relation read off another model's activations too; null for none."""
    prompts: PromptsConfig | None = None
    """Hidden system prompts of the experiment's own conversations; null for none."""
    judge: JudgeConfig | None = None
    """An LLM that judges what was written about hidden prompts, in a step of its own; `answers` is
    the most prompts of a task; null leaves it out."""
    predictors: tuple[PredictorName, ...] = PREDICTOR_NAMES
    """Methods that are compared, each on the tasks that it can be asked about; `prior` and
    `visible_text` only where `evaluate.baselines` has them."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Blocks that are read, those of the decoder besides; empty takes six, evenly spaced."""
    shares: SubjectShares = SubjectShares()
    """How the subjects of a relation are divided; those of the decoder's own rows of kind
    `relation` stay in the split that they have there."""
    max_subjects: int = Field(default=100, ge=1)
    """Most subjects of a test, drawn by hash from those that the target knows."""
    min_subjects: int = Field(default=30, ge=2)
    """Subjects under which a task is not measured."""
    validation_subjects: int = Field(default=20, ge=1)
    """Most subjects on which settings are chosen, likewise."""
    max_asked: int = Field(default=600, ge=1)
    """Most subjects of a part that the target is asked about, in search of those that it knows."""
    train_subjects: int = Field(default=400, ge=1)
    """Most subjects that the probe, the nearest neighbour and few-shot prompts learn from."""
    train_sources: int = Field(default=4, ge=1)
    """Most source texts of a training subject; tests have one of each subject."""
    answer_tokens: int = Field(default=20, ge=1)
    """Tokens of a written answer, in which the object has to be named."""
    bootstrap: int = Field(default=10_000, ge=100, le=100_000)
    """Bootstrap samples of every interval."""
    min_intervals: int = Field(default=8, ge=2)
    """Subjects, or groups of four, under which an estimate is given without an interval."""
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
