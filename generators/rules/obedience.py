"""Whether a reply obeys an instruction, as far as code can tell.

Each check looks for the trace that an obeyed instruction leaves in a reply: common words of a
language, a form, a length, a word. It errs towards "no" on very short replies. A thought before the
reply is no part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from core.documents.strict_json import json_type_name
from core.errors import DataError
from core.records.tables import Conversation
from core.text.thoughts import find_thought
from core.text.wording import shortened
from generators.rules.tone import CLEAR_SENTIMENT, REGISTERS, SENTIMENTS, formality_of, sentiment_of
from generators.rules.words import words

# words that are frequent in one of the languages and in none of the others
_FREQUENT_WORDS = {
    "en": "the and is of to you that with for this it are be can your",
    "fr": "le les des est une vous je pour avec dans pas ce nous votre et il au",
    "es": "el los las una es por para con usted y del como su muy más puede se",
    "de": "der die das und ist nicht ein eine ich sie mit für auf zu den sich",
    "it": "il gli è di che per con una sono non della le si mi tuo lo questo",
    "pt": "o os as é não uma para com você em por do da mais seu eu muito",
}
_FREQUENT: Mapping[str, frozenset[str]] = {
    code: frozenset(listed.split()) for code, listed in _FREQUENT_WORDS.items()
}
_LEAST_WORDS = 2
_NUMBERED = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")


def language_of(text: str) -> str | None:
    """Name the language whose frequent words `text` has most of; None where no one leads."""
    found = words(text)
    counts = {code: sum(word in own for word in found) for code, own in _FREQUENT.items()}
    first, second = sorted(counts.values(), reverse=True)[:2]
    if first < _LEAST_WORDS or first == second:
        return None
    return max(counts, key=lambda code: counts[code])


def _numbered_list(text: str) -> bool:
    return len(_NUMBERED.findall(text)) >= 2


def _question(text: str) -> bool:
    return text.rstrip().endswith("?")


def _capitals(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return bool(letters) and sum(letter.isupper() for letter in letters) > 0.9 * len(letters)


def _one_sentence(text: str) -> bool:
    return len(_SENTENCE_END.findall(text.strip())) <= 1 and "\n" not in text.strip()


def _exclamations(text: str) -> bool:
    return text.count("!") >= 2


FORMS: Mapping[str, Callable[[str], bool]] = {
    "numbered_list": _numbered_list,
    "question": _question,
    "capitals": _capitals,
    "one_sentence": _one_sentence,
    "exclamations": _exclamations,
}
"""Checks of a reply's form, by name."""
_EXPECTED = (
    "words, language, form, without, length, sentiment or register of a known value (languages "
    f"{', '.join(_FREQUENT)}; forms {', '.join(FORMS)}; sentiments {', '.join(SENTIMENTS)}; "
    f"registers {', '.join(REGISTERS)})"
)


def obeys(reply: str, check: Mapping[str, object]) -> bool:
    """Tell whether `reply` passes a check.

    Args:
        reply: what the target wrote.
        check: exactly one of `words` (a list, any of them), `without` (a list, none of them; an
            empty reply does not pass), `length` (least and most words), `language` (a code), `form`
            (a name of `FORMS`), `sentiment` (positive, negative) or `register` (formal, informal).

    Raises:
        ValueError: the check is none of these.
    """
    _, reply = find_thought(reply)
    match dict(check):
        case {"words": [*wanted]}:
            return not {str(word).casefold() for word in wanted}.isdisjoint(words(reply))
        case {"without": [*avoided]}:
            said = words(reply)
            return bool(said) and not {str(word).casefold() for word in avoided} & set(said)
        case {"length": [int(least), int(most)]}:
            return least <= len(words(reply)) <= most
        case {"language": str(code)} if code in _FREQUENT:
            return language_of(reply) == code
        case {"form": str(form)} if form in FORMS:
            return FORMS[form](reply)
        case {"sentiment": str(wanted)} if wanted in SENTIMENTS:
            return sentiment_of(reply) * SENTIMENTS[wanted] > CLEAR_SENTIMENT
        case {"register": str(wanted)} if wanted in REGISTERS:
            return formality_of(reply) * REGISTERS[wanted] > 0
    raise ValueError(f"got {shortened(json.dumps(dict(check)))}, expected {_EXPECTED}")


def checks_of(row: Conversation) -> Mapping[str, Mapping[str, object]]:
    """Return the checks of a row's control, by attribute; empty where code can check nothing.

    Raises:
        DataError: a table that was not made here has something else in their place.
    """
    facts = row.provenance.get("facts")
    found = facts.get("checks", {}) if isinstance(facts, dict) else {}
    if not isinstance(found, dict):
        raise _malformed(row, "", f"got {json_type_name(found)}, expected an object")
    for name, check in found.items():
        try:
            if not isinstance(check, dict):
                raise ValueError(f"got {json_type_name(check)}, expected {_EXPECTED}")
            obeys("", check)
        except ValueError as error:
            raise _malformed(row, f".{name}", str(error)) from error
    return found


def _malformed(row: Conversation, name: str, said: str) -> DataError:
    where = f"example {row.example_id}"
    if "file" in row.provenance:
        where = f"{row.provenance['file']}:{row.provenance.get('position')}, {where}"
    return DataError(f"{where}: facts.checks{name}: {said}. Mend the row, or take `checks` out.")


def obeys_control(row: Conversation, reply: str) -> bool:
    """Tell whether `reply` passes all checks of a row's control."""
    return all(obeys(reply, check) for check in checks_of(row).values())


def adherence(reply: str, check: Mapping[str, object]) -> float:
    """Score how far `reply` passes a check: a degree where there is one, else 0 or 1.

    Args:
        reply: what the target wrote.
        check: as for `obeys`.

    Returns:
        Of a sentiment VADER's compound score, of a register the share of formal less informal
        words, of words their share among all, each times 100 and towards what the check wants; of
        a language or a form 100 or 0.

    Raises:
        ValueError: the check is none of these.
    """
    _, reply = find_thought(reply)
    match dict(check):
        case {"sentiment": str(wanted)} if wanted in SENTIMENTS:
            return 100 * sentiment_of(reply) * SENTIMENTS[wanted]
        case {"register": str(wanted)} if wanted in REGISTERS:
            return 100 * formality_of(reply) * REGISTERS[wanted]
        case {"words": [*wanted]}:
            named = {str(word).casefold() for word in wanted}
            said = words(reply)
            return 100 * sum(word in named for word in said) / max(1, len(said))
    return 100.0 * obeys(reply, check)
