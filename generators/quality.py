"""What makes a reply unfit for the dataset, each rule under its own name.

Rules are plain functions that return a `Fault` or None; a dropped row is kept aside with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from generators.llm_request import Outcome

REASONS = {
    "malformed": "the reply does not follow its schema",
    "cut_off": "the reply reached its token limit",
    "empty": "the reply has no text where text is needed",
    "refusal": "the model declined",
    "filtered": "the endpoint's content filter held it back",
    "failed": "no reply within the retries",
    "near_duplicate": "too similar to a kept row, a seed or a few-shot example",
    "gives_control_away": "the stimulus reveals the control",
    "copied_answer": "words taken over from a few-shot example",
    "repeats_itself": "the same words again and again",
    "unsupported": "the answer says nothing that is in its control",
    "too_short": "the document has no room for a row",
    "duplicate": "the text of an earlier document or control",
}

_REFUSALS = re.compile(
    r"^\W*(i('m| am) (sorry|unable|not able)|sorry,|i (can ?not|can't|won't)|as an ai\b)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# what every sentence is made of, and what is said about any assistant: never content
_FRAME_WORDS = """
a about after all also always am an and another any anyone anything are as at be because been before
being both but by can could did do does doing done each else even ever every everything for from had
has have he her here him himself his how i if in instead into is it it's its itself just may me
might more most much must my no nor not now of off on one only or other our out over own please
shall she should so some someone something such than that the their them themselves then there these
they this those through to too until up upon us very was we were what when where whether which while
who whom whose why will with within without would you your yourself
answer answers aim assistant character conversation effort goal instruction persona role user users
"""
# words of any topic: alone they show neither a copy nor a leak
_GENERIC_WORDS = """
ask asked asks day explain find first full get give given gives go going good help keep keeps know
last let like likely little long look lot made make makes making many need never new nothing often
people person play playing plays question questions replies reply respond response responses said
same say saying says see speak speaks still suggest take taken takes talk talks tell tells thing
things time told tries try trying two use uses using want wants way well wish word words write
writes
"""
_FRAME = frozenset(_FRAME_WORDS.split())
_GENERIC = frozenset(_GENERIC_WORDS.split())


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that a reply breaks.

    Attributes:
        reason: one of `REASONS`.
        detail: what in the reply breaks it.
    """

    reason: str
    detail: str = ""


def read_json(outcome: Outcome, schema: Mapping[str, Any]) -> dict[str, Any] | Fault:
    """The reply as a dict of its schema's properties, or why it is none.

    Strings are stripped of the white space around them.
    """
    if outcome.status != "answer":
        return Fault(outcome.status, outcome.detail)
    try:
        reply = json.loads(outcome.content)
    except ValueError as error:
        return Fault("malformed", f"not JSON: {error}")
    if not isinstance(reply, dict):
        return Fault("malformed", f"expected an object, got {type(reply).__name__}")
    if missing := sorted(set(schema["required"]) - set(reply)):
        return Fault("malformed", f"property {missing[0]!r} is missing")
    clean: dict[str, Any] = {}
    for name, rule in schema["properties"].items():
        value = reply[name]
        if "enum" in rule and value not in rule["enum"]:
            return Fault("malformed", f"property {name!r} is none of {rule['enum']}")
        if rule.get("type") == "string":
            if not isinstance(value, str):
                return Fault("malformed", f"property {name!r} is no text")
            value = " ".join(value.split())
            if not value:
                return Fault("empty", f"property {name!r} is empty")
        clean[name] = value
    return clean


def words(text: str) -> list[str]:
    """Words of `text`, lower case, in order."""
    return [word.replace("’", "'").casefold() for word in _WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """Words that belong to a topic, in order, cut to a stem that plural and tense leave."""
    return [_stem(word) for word in words(text) if word not in _FRAME and word not in _GENERIC]


def refuses(text: str) -> Fault | None:
    """A model that declines in plain words, where its endpoint does not say so."""
    return Fault("refusal", text[:80]) if _REFUSALS.match(text) else None


def repeats_itself(text: str, least_distinct: float) -> Fault | None:
    """A text whose share of distinct runs of three words is below `least_distinct`."""
    found = words(text)
    runs = list(zip(found, found[1:], found[2:], strict=False))
    # a stammer shorter than a run of three shows as one word taking over
    stammer = len(found) >= 4 and any(
        found[i : i + 4] == [found[i]] * 4 for i in range(len(found) - 3)
    )
    share = len(set(runs)) / len(runs) if runs else 1.0
    if stammer or share < least_distinct:
        return Fault("repeats_itself", f"{share:.0%} of its runs of three words are distinct")
    return None


def copied(text: str, few_shot: Iterable[Mapping[str, Any]], asked: str, run: int) -> Fault | None:
    """Content words in a row, `run` of them, that a few-shot reply has and the request has not."""
    own = set(content_words(asked))
    mine = content_words(text)
    taken = {tuple(mine[i : i + run]) for i in range(len(mine) - run + 1)}
    for reply in few_shot:
        theirs = content_words(" ".join(str(value) for value in reply.values()))
        for i in range(len(theirs) - run + 1):
            piece = tuple(theirs[i : i + run])
            if piece in taken and not own.issuperset(piece):
                return Fault("copied_answer", f"from a few-shot example: {' '.join(piece)}")
    return None


def gives_away(stimulus: str, control: str, label: str, shared_words: int) -> Fault | None:
    """A stimulus that shares content words with its control, or one with the control's label."""
    mine = set(content_words(stimulus))
    named = mine & set(content_words(label.replace("-", " ").replace("_", " ")))
    shared = mine & set(content_words(control))
    if named or len(shared) >= shared_words:
        return Fault("gives_control_away", f"shares {', '.join(sorted(named | shared))}")
    return None


def unsupported(answer: str, control: str) -> Fault | None:
    """An answer without a single word of its control's own: it would suit any other as well."""
    mine, theirs = ({_stem(w) for w in words(t)} - _FRAME for t in (answer, control))
    if mine & theirs:
        return None
    return Fault("unsupported", "shares no content word with its control")


class Duplicates:
    """Texts seen so far, and whether another is nearly one of them (MinHash, LSH)."""

    _PERMUTATIONS = 128
    _RUN = 5  # characters

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=self._PERMUTATIONS)
        self._seen: list[tuple[str, Any, str | None]] = []

    def add(self, text: str, owner: str | None = None) -> None:
        """Remember `text`, of the control `owner`."""
        sketch = self._sketch(text)
        self._index.insert(str(len(self._seen)), sketch)
        self._seen.append((text, sketch, owner))

    def find(self, text: str, but_of: str | None = None) -> Fault | None:
        """The fault of being nearly a text that was added before, other than those of `but_of`."""
        sketch = self._sketch(text)
        # the index alone is off by some hundredths; the sketches decide
        for place in sorted(int(name) for name in self._index.query(sketch)):
            known, other, owner = self._seen[place]
            if owner is not None and owner == but_of:
                continue
            if (near := sketch.jaccard(other)) >= self._threshold:
                return Fault("near_duplicate", f"{near:.2f} alike: {known[:80]}")
        return None

    def _sketch(self, text: str) -> Any:
        from datasketch import MinHash

        plain = " ".join(words(text))
        sketch = MinHash(num_perm=self._PERMUTATIONS, seed=1)
        last = max(1, len(plain) - self._RUN + 1)
        sketch.update_batch([plain[i : i + self._RUN].encode() for i in range(last)])
        return sketch


def _stem(word: str) -> str:
    for ending in ("'s", "ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
