"""Config of an import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from core.config import Config
from generators.splits import SplitConfig

ROW_COLUMNS = (
    "messages", "role", "content", "segment", "system", "instruction", "input", "output",
    "questions", "question", "answer", "label", "kind", "category", "split", "control_id", "tools",
)  # fmt: skip
"""Fields of a row of own conversations, which another column may stand for."""


class RowsConfig(Config):
    """How rows of own conversations are laid out, and what of them is the control."""

    shape: Literal["messages", "sharegpt", "alpaca"] = "messages"
    """`messages`: a list of {role, content}; `sharegpt`: `conversations`, a list of {from, value};
    `alpaca`: `instruction`, `input` and `output`, with an optional `system`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Another name for a field: this field to the column that holds it, such as
    `{messages: dialogue, role: speaker}`."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Another name for a role, such as `{seeker: user}`; ShareGPT's names are known."""
    segments: Literal["given", "system", "first_turn"] | None = None
    """What is the control where no message of a row says so: the `system` messages, or all up to
    the first user message (`first_turn`); a last assistant message is then the completion.
    `given` demands that messages say so. Null is `system` where the row has a system message, else
    `first_turn`."""
    control: Literal["segment", "conversation"] | None = None
    """What makes two rows without `control_id` rows of one control: the text of the segment
    `control`, or the whole conversation, which gives each row a control of its own. Null is
    `segment`, but for rows whose control is a system prompt that more than half of the rows share:
    these are of the control that their `label` names, or `conversation`."""
    questions: Literal["given", "written"] = "given"
    """Where the questions come from: `given` by every row, or `written` by an LLM, whose place and
    settings are in the section `generate` (`endpoint`, `questions`)."""
    dataset_split: str | None = None
    """Split of a Hugging Face dataset; null takes all that a saved folder has, each as the rows'
    own split where it is called like one, and `train` of a dataset on the hub."""
    subset: str | None = None
    """Configuration of a dataset on the hub; null for its default."""
    revision: str | None = None
    """Revision of a dataset on the hub; null for the newest."""

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(columns) - set(ROW_COLUMNS)):
            raise ValueError(f"no field {unknown[0]!r}; expected any of {', '.join(ROW_COLUMNS)}")
        return columns


class ImportConfig(Config):
    """Settings of an import that decide the two tables."""

    splits: SplitConfig = SplitConfig()
    """Grouped splits; rows of own conversations that name a split keep it."""
    limit: int | None = Field(default=None, ge=1)
    """Most rows of each view, taken evenly over the splits; null for all."""
    rows: RowsConfig = RowsConfig()
    """The layout of own conversations (`format: conversations`)."""


DataFormat = Literal["latentqa", "conversations"]


class DataSection(ImportConfig):
    """The YAML's section `data`: an import and where its files are."""

    path: str
    """Folder with qa.json and any of control.json, stimulus.json, stimulus_completion.json,
    system.json; for `conversations` a .jsonl, .json or
    .parquet file, a folder of them, a folder that `datasets`
    saved, or the id of a dataset on the hub. The files' digests are part of the identity, the path
    is not."""
    format: DataFormat = "latentqa"
    """What the files are: LatentQA's published layout, or `conversations` of one's own, a line
    each, with segments and questions."""
