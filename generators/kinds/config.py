"""A plan says how many controls of a kind are made, of which categories and from which texts."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from core.config import Config
from core.records.tables import View

MOST_CONTROLS = 10_000_000
"""Of one kind."""


class TextSource(Config):
    """Texts that rows are cut from; a plain string, or a list of them, is its `path`."""

    path: str | tuple[str, ...]
    """A file (.txt, .md, .jsonl, .parquet; for relations .tsv, .csv, .json, .jsonl, .yaml), a
    folder of them, a folder saved by `datasets`, or the id of a Hugging Face dataset. For relations
    also `packaged` (those of the package), or a list of paths. The content is part of the cache
    key, the path is not."""
    revision: str | None = None
    """Revision of a Hugging Face dataset; null looks up the newest commit."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset; null for its default."""
    split: str = "train"
    """Split of a Hugging Face dataset or of a folder saved by `datasets`."""
    column: str = "text"
    """Column with the text; unused for .txt and .md files."""
    category: str | None = None
    """Column with the category; null takes the name of a folder's first sub-folder, or `text`."""
    windows: int = Field(default=4, ge=1)
    """Most rows per document, or per subject of a file of relations."""
    characters: int = Field(default=240, ge=40, le=20_000)
    """Length of a `context` control and of the passage after it, in characters; an answer has a
    third of it."""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        own = given if isinstance(given, dict) else {"path": given}
        path = own.get("path")
        # what a validator returns is no JSON any more, in which a list would do for a tuple
        return {**own, "path": tuple(path)} if isinstance(path, list) else own

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return (self.path,) if isinstance(self.path, str) else self.path


class KindPlan(Config):
    """How many rows of one kind of control are made, and of which sort."""

    controls: int = Field(default=24, ge=1, le=MOST_CONTROLS)
    """Planned controls. Dropped replies are replaced within `over_ask`; a source of texts may have
    too few for all."""
    categories: dict[str, int] | None = None
    """Controls per category, whose sum is `controls`; null takes all categories in turn."""
    views: tuple[View, ...] | None = None
    """Views of each control; null for all that the kind has. The step `complete` adds
    `stimulus_completion`."""
    stimuli: int = Field(default=1, ge=1, le=10_000)
    """Stimuli per control. More than 1 makes a crossed design, in which several controls share each
    stimulus. In kinds written by an LLM a control has one stimulus of its own and borrows the
    others from controls of its kind; in kinds cut from texts it has only one."""
    source: TextSource | None = None
    """Texts of kind `context`, or files of relations of kind `relation`."""

    @model_validator(mode="after")
    def _categories_make_up_controls(self) -> KindPlan:
        if self.categories is None:
            return self
        if not self.categories or min(self.categories.values()) < 1:
            raise ValueError("categories: expected at least one, each with a number above 0")
        total = sum(self.categories.values())
        if total > MOST_CONTROLS:
            raise ValueError(f"categories: got {total} in all, expected at most {MOST_CONTROLS:,}")
        if "controls" in self.model_fields_set and self.controls != total:
            raise ValueError(
                f"controls: got {self.controls}, and {total} in all categories; leave one out"
            )
        # the default is what the categories make up; a frozen model is set before anyone sees it
        object.__setattr__(self, "controls", total)
        return self

    @field_validator("views")
    @classmethod
    def _made_here(cls, views: tuple[View, ...] | None) -> tuple[View, ...] | None:
        if views is not None and (
            "stimulus_completion" in views or not views or len(set(views)) != len(views)
        ):
            raise ValueError("expected distinct views among control, stimulus, system")
        return views
