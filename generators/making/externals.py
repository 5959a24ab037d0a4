"""What decides generated tables besides their config: the generator, prompts, seeds, sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.files import sha256_file
from core.records.table_files import CONVERSATIONS_FILE
from generators.kinds import KINDS, OWN, get_kind, written_kinds
from generators.kinds.base import Kind, WrittenKind
from generators.kinds.sources import ResolvedTexts
from generators.llm.endpoint.resolve import model_identity
from generators.llm.prompt_files import PromptFiles
from generators.making.config import ConversationsConfig, GenerateSection
from generators.making.drawn import resolve_sources

STIMULUS_PROMPT = "stimulus"
RULES_VERSION = 2
"""Raised when the rules keep other replies of an LLM; what code draws does not depend on it."""


def generation_externals(
    section: GenerateSection,
    *,
    weights: str | None = None,
    sources: Mapping[str, ResolvedTexts] | None = None,
    imported: bool = False,
) -> dict[str, dict[str, Any]]:
    """Collect what decides each table besides its config: generator, prompts, seeds, sources.

    Args:
        section: the YAML's section.
        weights: digest of the embedded model's GGUF file, where that model is asked.
        sources: texts of the kinds that read any; None to find them now.
        imported: whether the conversations are imported, and only questions are written.

    Returns:
        for each artifact the generator's identity, where an LLM is needed, and how its replies are
        held to their schemas where that is not the default; the digest of each prompt and seeds
        file; and what the conversations' texts are, where they are cut from any.

    Raises:
        ConfigError: an unknown kind, or a file that is not there.
        DataError: a source of texts is not there.
    """
    texts = texts_of(section)
    kinds: Sequence[Kind] = [get_kind(name) for name in section.conversations.kinds]
    if imported:  # rows of any kind
        kinds = [*(kind for kind in KINDS.values() if isinstance(kind, WrittenKind)), OWN]
    written = [kind for kind in kinds if isinstance(kind, WrittenKind)]
    generator: dict[str, Any] = {}
    if written:
        generator["generator"] = model_identity(section.endpoint, weights)
        generator["rules"] = RULES_VERSION
        if section.endpoint.structured != "schema":
            # tables from before there was a choice keep their keys
            generator["structured"] = section.endpoint.structured
    made = [] if imported else written
    stimuli = any("stimulus" in kind.views for kind in made)
    if sources is None:
        sources = resolve_sources(section.conversations)
    found = {name: dict(source.identity) for name, source in sources.items()}
    before = sorted(sha256_file(path) for path in earlier_tables(section))
    return {
        "conversations": {
            **generator,
            "texts": texts.digests(
                prompts=(
                    *(kind.control_prompt for kind in made),
                    *((STIMULUS_PROMPT,) if stimuli else ()),
                ),
                seeds=(
                    *(kind.seeds for kind in made),
                    *(name for kind in kinds for name in kind.control_texts),
                    *(("everyday",) if stimuli else ()),
                ),
            ),
            **_versions({kind.name: kind.control_version for kind in kinds}),
            **({"sources": found} if found else {}),
            **({"earlier": before} if before else {}),
        },
        "questions": {
            **generator,
            **_versions({kind.name: kind.question_version for kind in kinds}),
            "texts": texts.digests(
                prompts=tuple(name for kind in written for name in kind.question_prompts),
                seeds=tuple({name for kind in kinds for name in kind.question_texts}),
            ),
        },
    }


def _versions(of_kinds: Mapping[str, int]) -> dict[str, Any]:
    """Return the versions of kinds; a first one leaves keys as they were without versions."""
    later = {name: version for name, version in of_kinds.items() if version > 1}
    return {"kinds": later} if later else {}


def needs_llm(config: ConversationsConfig) -> bool:
    """Tell whether an LLM writes any of the kinds in `config`.

    Raises:
        ConfigError: an unknown kind.
    """
    return bool(written_kinds(config.kinds))


def earlier_tables(section: GenerateSection) -> list[Path]:
    """Find the conversations tables of the earlier versions that `section` names.

    Raises:
        DataError: one is not there.
    """
    found: list[Path] = []
    for name in section.earlier:
        path = Path(name).expanduser()
        # a folder of tables, an artifact, or an import
        folders = (path, path / "data", path / "conversations")
        places = (path, *(folder / CONVERSATIONS_FILE for folder in folders))
        table = next((place for place in places if place.is_file()), None)
        if table is None:
            raise DataError(
                f"generate.earlier: {name}: no {CONVERSATIONS_FILE} there; expected such a file or "
                "the folder that holds it."
            )
        found.append(table)
    return found


def texts_of(section: GenerateSection) -> PromptFiles:
    """Open the prompts and seeds that `section` names."""
    return PromptFiles(
        prompts=Path(section.prompts) if section.prompts else None,
        seeds=Path(section.seeds) if section.seeds else None,
    )
