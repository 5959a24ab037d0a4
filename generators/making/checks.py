"""Checks of what is to be generated, before anything is requested."""

from __future__ import annotations

from core.errors import ConfigError
from generators.kinds import get_kind
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig


def check_conversations(config: ConversationsConfig, texts: PromptFiles) -> None:
    """Check `config` against kinds, seeds and sources before anything is requested.

    Raises:
        ConfigError: an unknown kind, a view that a kind lacks, a source that it needs or cannot
            read, or an unknown held-out category.
    """
    known: set[str] = set()
    told_by_rows: set[str] = set()
    for name, plan in config.kinds.items():
        kind = get_kind(name)
        categories = kind.categories(texts)
        if categories is None:
            told_by_rows.add(name)
        known |= {f"{name}/{category}" for category in categories or ()}
        if bool(kind.endings) != (plan.source is not None):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.source: "
                + (
                    "is missing; name a file, or a folder of files, that end in "
                    f"{', '.join(kind.endings)}."
                    if kind.endings
                    else "this kind reads no texts; leave it out."
                )
            )
        if categories is not None and (
            unknown := [one for one in plan.categories or () if one not in categories]
        ):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.categories: unknown category "
                f"{unknown[0]!r}; expected any of {', '.join(categories)}."
            )
        if wrong := sorted(set(plan.views or ()) - set(kind.views)):
            raise ConfigError(
                f"generate.conversations.kinds.{name}.views: got {wrong[0]!r}, expected "
                f"views of this kind: {', '.join(kind.views)}."
            )
    for category in config.splits.test_ood:
        kind_of = category.partition("/")[0]
        if category not in known and kind_of in config.kinds and kind_of not in told_by_rows:
            raise ConfigError(
                f"generate.conversations.splits.test_ood: unknown category {category!r}; "
                f"expected one of {', '.join(sorted(known))}."
            )
