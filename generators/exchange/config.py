"""Config of an import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.config import Config
from generators.splits import SplitConfig


class ImportConfig(Config):
    """What decides the two tables, given the files."""

    splits: SplitConfig = SplitConfig()
    """Grouped splits."""
    limit: int | None = Field(default=None, ge=1)
    """Most rows of each view, taken evenly over the splits; null for all."""


DataFormat = Literal["latentqa", "conversations"]


class DataSection(ImportConfig):
    """The YAML's section `data`: an import and where its files are."""

    path: str
    """Folder with qa.json and any of control.json, stimulus.json, stimulus_completion.json,
    system.json; for `conversations` a .jsonl file or a folder of them. The files' digests are part
    of the identity, the path is not."""
    format: DataFormat = "latentqa"
    """What the files are: LatentQA's published layout, or `conversations` of one's own, a line
    each, with segments and questions."""
