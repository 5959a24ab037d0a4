"""Config of an import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from core.config import Config
from generators.splits import SplitConfig

ROW_COLUMNS = (
    "messages", "role", "content", "segment", "system", "instruction", "input", "output",
    "history", "prompt", "completion", "questions", "question", "answer", "label", "kind",
    "category", "split", "control_id", "tools",
)  # fmt: skip
"""Fields of a row of own conversations, which another column may stand for."""


class RowsConfig(Config):
    """The layout of rows of your own conversations, and which part is the control."""

    shape: Literal["messages", "sharegpt", "alpaca", "prompt"] = "messages"
    """`messages`: a list of {role, content}; `sharegpt`: `conversations`, a list of {from, value};
    `alpaca`: `instruction`, `input` and `output`, with an optional `system` and `history`;
    `prompt`: `prompt` and `completion`, each a text or messages."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column names that differ from the field names, as field: column, such as `{messages:
    dialogue, role: speaker}`; a path such as `body.messages` leads into an object."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Role names that differ, as name: role, such as `{seeker: user}`; ShareGPT's names are
    known."""
    segments: Literal["given", "system", "first_turn"] | None = None
    """How to find the control in rows whose messages do not say so: `system` takes the system
    messages, `first_turn` all up to the first user message; a last assistant message is then the
    completion. `given` requires every message to state its segment. Null is `system` if the row has
    a system message, else `first_turn`."""
    control: Literal["segment", "conversation"] | None = None
    """Which rows without `control_id` share a control: `segment` those with the same text of
    segment `control`; `conversation` none. Null is `segment`, except for rows whose control is a
    system prompt that more than half of the rows share: they are grouped by `label`, or are
    separate controls if they have none."""
    questions: Literal["given", "written"] = "given"
    """Where the questions come from: `given` in every row, or `written` by an LLM as the section
    `generate` says (`endpoint`, `questions`)."""
    dataset_split: str | None = None
    """Split of a Hugging Face dataset. Null takes every split of a saved folder, and `train` of a
    dataset on the hub. Rows of splits, or files, that are named `train`, `validation`, `test`, …
    keep that split where `train` and another one are among them."""
    subset: str | None = None
    """Configuration of a dataset on the hub; null for its default."""
    revision: str | None = None
    """Revision of a dataset on the hub; null for the newest."""

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(columns) - set(ROW_COLUMNS)):
            raise ValueError(f"no field {unknown[0]!r}; expected any of {', '.join(ROW_COLUMNS)}")
        for name, column in columns.items():
            others = [other for other in columns if other != name and columns[other] == column]
            if others or not column.strip():
                what = f"and {others[0]} are both column" if others else "is column"
                raise ValueError(f"{name} {what} {column!r}; expected a column of its own")
        return columns


class ImportConfig(Config):
    """Settings of an import that decide the two tables."""

    splits: SplitConfig = SplitConfig()
    """How rows are divided into splits; rows that name their split keep it."""
    limit: int | None = Field(default=None, ge=1)
    """Most rows per view, taken evenly over the splits; null for all."""
    rows: RowsConfig = RowsConfig()
    """Layout of your own conversations (`format: conversations`)."""


DataFormat = Literal["latentqa", "conversations"]


class DataSection(ImportConfig):
    """The YAML's section `data`: files that are imported."""

    path: str
    """LatentQA's layout: a folder with qa.json and any of control.json, stimulus.json,
    stimulus_completion.json, system.json. `conversations`: a .jsonl, .json, .parquet, .csv or .tsv
    file, a folder of them, a folder saved by `datasets`, or the id of a dataset on the hub. The
    files' digests are part of the cache key, the path is not."""
    format: DataFormat = "latentqa"
    """Layout of the files: `latentqa` is LatentQA's published one; `conversations` is your own, one
    conversation per line with segments and questions."""
