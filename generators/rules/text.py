"""Rules reject texts that are unfit for a data set; each returns a named `Rejection` or None.

Rules are plain functions that return a `Rejection` or None; a dropped row is kept aside with it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from generators.llm.chat.reply_json import Rejection
from generators.rules.words import HAN, UNSPACED, words

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

_DECLINED = (
    r"(?:help|assist|comply|fulfil?l|provide|answer|respond|continue|engage|participate|create"
    r"|write|generate|discuss|support|do (?:that|this|it)|role-?play|pretend|adopt|take on|process"
    r"|complete|act as|act like|give you|offer|reply|speak as|talk about)\b"
    # "I can't help but smile" and "I can't help laughing" decline nothing
    r"(?!(?<=help) (?:but\b|myself|it\b|\w+ing\b))"
)
_UNABLE = (
    r"(?:i (?:can ?not|can't|could ?n[o']t|won't|will not|must decline|have to decline)"
    r"|i(?:'m| am) (?:unable|not able|not allowed|not going|not permitted))"
    r"(?: to)?(?: be able to)?(?: \w+ly)?"
)
_SORRY = (
    r"(?:(?:i(?:'m| am)|we're|we are)(?: \w+)? sorry|sorry|i apologi[sz]e|unfortunately"
    r"|my apologies)"
)
_REFUSALS = re.compile(
    rf"^\W*(?:{_SORRY}\b[^.!?\n]{{0,60}}?[.,;:!]?\W*(?:but\W+)?{_UNABLE} {_DECLINED}"
    rf"|{_UNABLE} {_DECLINED}"
    rf"|{_SORRY}[,.]?(?: but)?\W*$"
    r"|[^.!?\n]{0,60}(?:\bis not|'s not|\bisn't) something (?:that )?i can\b"
    r"|as an ai\b(?! (?:who|that) ))",
    re.IGNORECASE,
)
"""A model that declines: it says that it cannot do one of the things that it is asked to do. A
character who cannot wait, or will not leave the harbour, declines nothing."""
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


def content_words(text: str) -> list[str]:
    """List the words that belong to a topic, in order, stemmed.

    Of scripts without spaces, runs of three characters (of six, outside Chinese and Japanese).
    """
    found = [word for word in words(text) if word not in _FRAME and word not in _GENERIC]
    return [_stem(word) for word in _joined_characters(found, 3, 6)]


def _joined_characters(found: Sequence[str], han: int, others: int) -> list[str]:
    """Join neighbouring characters of scripts without spaces into overlapping runs."""
    joined: list[str] = []
    for unspaced, run in itertools.groupby(
        found, key=lambda word: UNSPACED.match(word) is not None
    ):
        own = list(run)
        if not unspaced:
            joined += own
            continue
        length = han if all(map(HAN.match, own)) else others
        joined += ["".join(own[i : i + length]) for i in range(max(1, len(own) - length + 1))]
    return joined


def find_refusal(text: str) -> Rejection | None:
    """Detect a reply in which a model declines in plain words."""
    plain = text.replace("’", "'")
    return Rejection("refusal", text[:80]) if _REFUSALS.match(plain) else None


def find_repetition(text: str, least_distinct: float) -> Rejection | None:
    """Detect a text whose share of distinct runs of three words is below `least_distinct`."""
    found = words(text)
    runs = list(zip(found, found[1:], found[2:], strict=False))
    # a stammer shorter than a run of three shows as one word taking over
    stammer = len(found) >= 4 and any(
        found[i : i + 4] == [found[i]] * 4 for i in range(len(found) - 3)
    )
    share = len(set(runs)) / len(runs) if runs else 1.0
    if stammer or share < least_distinct:
        return Rejection("repeats_itself", f"{share:.0%} of its runs of three words are distinct")
    return None


def find_copied_words(
    text: str, few_shot: Iterable[Mapping[str, Any]], asked: str, run: int
) -> Rejection | None:
    """Detect `run` content words in a row that a few-shot reply has and the request has not."""
    own = set(content_words(asked))
    mine = content_words(text)
    taken = {tuple(mine[i : i + run]) for i in range(len(mine) - run + 1)}
    for reply in few_shot:
        theirs = content_words(" ".join(str(value) for value in reply.values()))
        for i in range(len(theirs) - run + 1):
            piece = tuple(theirs[i : i + run])
            if piece in taken and not own.issuperset(piece):
                return Rejection("copied_answer", f"from a few-shot example: {' '.join(piece)}")
    return None


def find_control_leak(
    stimulus: str, control: str, label: str, shared_words: int
) -> Rejection | None:
    """Detect a stimulus that shares content words with its control, or one with its label."""
    mine = set(content_words(stimulus))
    named = mine & set(content_words(label.replace("-", " ").replace("_", " ")))
    shared = mine & set(content_words(control))
    if named or len(shared) >= shared_words:
        return Rejection("gives_control_away", f"shares {', '.join(sorted(named | shared))}")
    return None


def find_unsupported(answer: str, control: str) -> Rejection | None:
    """Detect an answer without a single word of its control: it would suit any other as well."""
    mine, theirs = (
        {_stem(word) for word in _joined_characters(words(text), 2, 4)} - _FRAME
        for text in (answer, control)
    )
    if mine & theirs:
        return None
    return Rejection("unsupported", "shares no content word with its control")


def _stem(word: str) -> str:
    for ending in ("'s", "ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
