"""A plan says how many controls of a kind are made, of which categories and from which texts."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from core.config import Config
from core.records.tables import View


class TextSource(Config):
    """Texts to cut rows from; a plain string, or a list of them, stands for its `path`."""

    path: str | tuple[str, ...]
    """A file (.txt, .md, .jsonl, .parquet; of relations .tsv, .csv, .json, .jsonl, .yaml), a folder
    of them, a folder that `datasets` saved, or the id of a Hugging Face dataset. Of relations also
    `packaged`, those of the package, and several in a list. What lies there is part of the
    identity, the path is not."""
    revision: str | None = None
    """Revision of a Hugging Face dataset; null for the newest, whose commit is then looked up."""
    subset: str | None = None
    """Configuration of a Hugging Face dataset; null for its default."""
    split: str = "train"
    """Split of a Hugging Face dataset or of a folder that `datasets` saved."""
    column: str = "text"
    """Column with the text, except in .txt and .md files."""
    category: str | None = None
    """Column with the category; null takes a folder's first sub-folder, or `text`."""
    windows: int = Field(default=4, ge=1)
    """Most rows of one document, or of one subject of a file of relations."""
    characters: int = Field(default=240, ge=40, le=20_000)
    """Length of a control of `context` and of the passage after it, in characters; answers have a
    third."""

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
    """What is made of one kind of control."""

    controls: int = Field(default=24, ge=1)
    """Controls that are planned; replies that are dropped are replaced within `over_ask`, and a
    source of texts may end before."""
    categories: dict[str, int] | None = None
    """Controls of each category, which make up `controls`; null for all categories by turns."""
    views: tuple[View, ...] | None = None
    """Views of each control; null for all that the kind has. `stimulus_completion` is added by the
    step `complete`."""
    stimuli: int = Field(default=1, ge=1)
    """Stimuli of each control (a crossed design: several stimuli a control, and each of them under
    several controls). A kind that an LLM writes has one of its own and takes the others from other
    controls of its kind; of a kind that is cut from texts each control has one."""
    source: TextSource | None = None
    """Where the texts of `context`, or the files of relations of `relation`, are."""

    @model_validator(mode="after")
    def _categories_make_up_controls(self) -> KindPlan:
        if self.categories is None:
            return self
        if not self.categories or min(self.categories.values()) < 1:
            raise ValueError("categories: expected at least one, each with a number above 0")
        total = sum(self.categories.values())
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
