"""Relations whose subjects share their texts, as one YAML file."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, ValidationError

from core.config import Config, first_problem
from core.documents.yaml_values import parse_yaml, read_yaml
from core.errors import DataError, first_line

YAML_SUFFIXES = (".yaml", ".yml")


class _SharedTexts(Config):
    """A relation, with texts that hold for each of its subjects."""

    question: str = Field(min_length=1)
    texts: tuple[str, ...] = Field(min_length=1)
    facts: dict[str, str | tuple[str, ...]] = Field(min_length=1)


def yaml_rows(path: Path, place: re.Pattern[str]) -> list[dict[str, str]]:
    """Write out a YAML file: a row for each text of each subject.

    Args:
        path: of the file.
        place: finds the subject's place in a text.

    Raises:
        ConfigError: it is no YAML.
        DataError: it cannot be read, or says no relation.
    """
    try:
        content = parse_yaml(read_yaml(path), str(path), "a relation")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as relations ({first_line(error)}).") from error
    try:
        shared = _SharedTexts.model_validate(content)
    except ValidationError as error:
        raise DataError(
            f"{path}: {first_problem(error)}; expected question, texts and facts (object: "
            "subjects)."
        ) from None
    rows = []
    for text in shared.texts:
        for names, subjects in shared.facts.items():
            for subject in [subjects] if isinstance(subjects, str) else subjects:
                first_name, _, aliases = names.partition("|")
                source = place.sub(subject.replace("\\", r"\\"), text)
                row = {"subject": subject, "object": first_name, "aliases": aliases}
                rows.append({**row, "question": shared.question, "source": source})
    return rows
