"""What decides an import of published files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generators.config import Config


class SplitConfig(Config):
    """How groups of rows are divided; a group falls into one split."""

    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the groups of each kind for validation."""
    test: float = Field(default=0.2, ge=0, lt=1)
    """Share of the groups of each kind for test."""
    test_ood: tuple[str, ...] = ()
    """Categories (`kind/category`) that are held out whole, as split `test_ood`."""
    seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _some_train(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test leave nothing to train on; expected less than 1")
        return self


class ImportConfig(Config):
    """What decides the two tables, given the files."""

    splits: SplitConfig = SplitConfig()
    """Grouped splits."""
    limit: int | None = Field(default=None, ge=1)
    """Most rows of each view, taken evenly over the splits; null for all."""


Format = Literal["latentqa", "conversations"]


class DataSection(ImportConfig):
    """The YAML's section `data`: an import and where its files are."""

    path: str
    """Folder with qa.json and any of control.json, stimulus.json, stimulus_completion.json,
    system.json; for `conversations` a .jsonl file or a folder of them. The files' digests are part
    of the identity, the path is not."""
    format: Format = "latentqa"
    """What the files are: LatentQA's published layout, or `conversations` of one's own, a line
    each, with segments and questions."""
