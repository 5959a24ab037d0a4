"""YAML 1.2 as a user's files need it: JSON's types alone, each key once, and an end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from core.documents.strict_json import fits_utf8
from core.errors import ConfigError
from core.text.wording import size

MOST_VALUES = 100_000
"""Most values of a document with its aliases written out; of a long one, as many as characters."""
_LARGEST = 2**63 - 1


_MOST_BYTES = 4_000_000


class _Constructor(SafeConstructor):
    """Constructs YAML's plain types; a date stays text."""

    def flatten_mapping(self, node: Any) -> Any:
        """Write out what `<<` merges into a mapping, as far as it has an end."""
        merged = super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise _Refused(f"its merged mappings have more than {MOST_VALUES:,} values")
        return merged


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


class _Refused(ValueError):
    """A value that is YAML, and that no file here can hold."""


def read_yaml(path: Path) -> str:
    """Read the text of a user's YAML file; one that does not end, such as a device, is refused.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
        ConfigError: it is larger than such files are.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigError(
            f"{path}: larger than {size(_MOST_BYTES)}, expected a smaller file. Check the path."
        )
    return content.decode()


def parse_yaml(text: str | bytes, source: str, what: str = "an experiment") -> Any:
    """Return the value of one YAML document, in JSON's types.

    Args:
        text: the document.
        source: where it comes from, for the error.
        what: what it should be, for the error.

    Raises:
        ConfigError: it is not YAML, repeats a key, or holds what JSON does not; with the line
            where that is known.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        value = yaml.load(text)
        most = max(MOST_VALUES, len(text))
        for item in itertools.islice(_values(value), most):
            _check(item)
        if next(itertools.islice(_values(value), most, None), None) is not None:
            raise _Refused(f"its aliases expand to more than {most:,} values")
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML for {what} (nested too deeply).") from error
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark and not source.startswith("--") else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        problem = problem.partition(" with value ")[0]  # a repeated key's value may be a secret
        # ruamel's own error quotes the document, which may hold a key
        raise ConfigError(f"{place}: not valid YAML for {what} ({problem}).") from None
    return value


def _values(value: Any) -> Iterator[Any]:
    """Yield `value` and every value in it, as often as it is referred to."""
    pending = [value]
    while pending:
        item = pending.pop()
        yield item
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _check(item: Any) -> None:
    if isinstance(item, dict):
        for key in item:
            if not isinstance(key, str):
                raise _Refused(f"the key {key!r} is not text")
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise _Refused(f"{item} is not a finite number")
    elif isinstance(item, int):
        if abs(item) > _LARGEST:
            raise _Refused("an integer has more than 64 bits")
    elif isinstance(item, str):
        if not fits_utf8(item):
            raise _Refused("a text holds half of a surrogate pair")
    elif item is not None and not isinstance(item, list):
        raise _Refused(f"a {type(item).__name__} is not an allowed value")
