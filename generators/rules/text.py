"""Rules reject texts that are unfit for a data set.

Rules are plain functions that return a `Rejection` or None; a dropped row is kept aside with it.
docs/generation.md lists the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from generators.llm.chat.reply_json import Rejection
from generators.rules.words import UNSPACED, join_characters, normalize, wordlike_units, words

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
# the same of languages without spaces, and of Korean, where it stands at the end of words
_UNSPACED_FRAME = re.compile(
    r"\s+"
    "|[\u3041-\u309f]+"  # hiragana: particles and endings
    "|[我你您他她它们請请的地得了着過过是在有和与與或吗嗎呢吧啊把被给給让讓对對为為从從到就都也很会會能可"
    "以要想用說说話话問问告诉訴回答请請这這那哪什么甚麼怎样樣如何一个個不没沒]+"
    "|당신|저는|나는|제가|내가|우리|무엇|어떻게|어떤|대해|대답|질문|말하|말씀|알려|해주|하는|하고|하며|있는|있습"
    "|(?:습니다|합니다|입니다|ㅂ니다|십시오|하세요|주세요|세요|인가요|나요|까요|어요|아요|에요|예요|해요|니까|이다|한다"
    "|에서|에게|으로|처럼|까지|부터|은|는|이|가|을|를|의|에|와|과|도|로)(?=\\W|$)"
)
_CONSONANTS = re.compile("[\u0590-\u074f]")
"""Hebrew, Arabic, Syriac."""
_FRAME = frozenset(_FRAME_WORDS.split())
_GENERIC = frozenset(_GENERIC_WORDS.split())


def content_words(text: str) -> list[str]:
    """List the words that belong to a topic, in order, stemmed.

    Of scripts without spaces, runs of three characters (of two in Korean, of six in Thai and its
    neighbours) that hold none of the characters that any sentence has.
    """
    found: list[str] = []
    for piece in _UNSPACED_FRAME.split(normalize(text)):
        own = [word for word in words(piece) if word not in _FRAME and word not in _GENERIC]
        found += [
            _stem(word)
            for word in join_characters(own, east_asian=3, hangul=2, others=6)
            if len(word) > 1 or not UNSPACED.match(word)
        ]
    return found


def find_repetition(text: str, least_distinct: float) -> Rejection | None:
    """Detect a text whose share of distinct runs of three words is below `least_distinct`."""
    found = wordlike_units(words(text))
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
    mine, theirs = (_shared_parts(text) for text in (answer, control))
    if mine & theirs:
        return None
    said = words(answer)
    if 3 * sum(word in _FRAME for word in said) < len(said):
        # hardly English: words of one stem, whatever stands before and behind it
        mine, theirs = ({run for word in own for run in _runs(word)} for own in (mine, theirs))
        if mine & theirs:
            return None
    return Rejection("unsupported", "shares no content word with its control")


def _shared_parts(text: str) -> set[str]:
    found = join_characters(words(text), east_asian=2, hangul=2, others=4)
    return {_stem(word) for word in found} - _FRAME


def _runs(word: str) -> list[str]:
    """List the runs of four letters of a word; of three where a script leaves vowels out."""
    length = 3 if _CONSONANTS.match(word) else 4
    return [word[i : i + length] for i in range(max(1, len(word) - length + 1))]


def _stem(word: str) -> str:
    for ending in ("'s", "ingly", "edly", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
