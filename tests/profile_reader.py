"""A reader of fact sheets that knows English and nothing of the generator.

It takes a sheet's text apart into facts, understands a question about it, and says what the answer
has to be. Neither vocabulary nor facts come from the package: a template that it cannot read is an
error, and so is an answer that does not follow from the text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

# what a sheet can say of a thing; a group holds the value, + and - are yes and no
PHRASES = [
    ("trade", r"(?:works as|earns a living as) (.+)"),
    ("trade", r"is (an? .+) by trade"),
    ("street", r"(?:lives in|has a home in|rents two rooms in) (.+)"),
    ("age", r"is (\d+) years old"),
    ("age", r"turned (\d+) this year"),
    ("choir+", r"sings in the choir|belongs to the choir"),
    ("choir-", r"does not sing in the choir|has never joined the choir"),
    ("eggs", r"(?:buys|gets) eggs from (\w+)"),
    ("duty", r"(?:serves as|sails as|signed on as) (.+)"),
    ("port", r"(?:comes|hails) from (.+)"),
    ("years", r"has sailed for (\d+) years"),
    ("years", r"has spent (\d+) years at sea"),
    ("swim+", r"can swim|is able to swim"),
    ("swim-", r"cannot swim|has never learned to swim"),
    ("knots", r"(?:learned knots from|was taught knots by) (\w+)"),
    ("part", r"(?:appears as|takes the part of|is cast as) (.+)"),
    ("instrument", r"(?:practises|takes lessons on) (.+)"),
    ("lines", r"has (\d+) lines"),
    ("lines", r"must know (\d+) lines by heart"),
    ("wig+", r"wears a wig|is given a wig"),
    ("wig-", r"wears no wig|is not given a wig"),
    ("standin", r"(?:stands in|is the stand-in) for (\w+)"),
    ("breed", r"(?:is registered|entered the books) as (.+)"),
    ("bed", r"(?:sleeps|spends the night) (.+)"),
    ("weight", r"weighs (\d+) kilograms"),
    ("weight", r"brings (\d+) kilograms to the scales"),
    ("sticks+", r"fetches sticks|likes to fetch sticks"),
    ("sticks-", r"does not fetch sticks|never fetches sticks"),
    ("follows", r"(?:follows|trots behind) (\w+)"),
    ("cargo", r"(?:carries|is loaded with) (.+)"),
    ("colour", r"is painted (.+)"),
    ("colour", r"has a coat of (.+) paint"),
    ("length", r"is (\d+) metres long"),
    ("length", r"measures (\d+) metres from bow to stern"),
    ("flag+", r"flies a flag|has hoisted a flag"),
    ("flag-", r"flies no flag|has not hoisted a flag"),
    ("waits", r"(?:waits|has to wait) for (\w+)"),
    ("surface", r"(?:is covered in|lies under) (.+)"),
    ("finder", r"was (?:found|discovered) by (.+)"),
    ("orbit", r"needs (\d+) days for an orbit"),
    ("orbit", r"completes an orbit in (\d+) days"),
    ("air+", r"(?:has|holds) an atmosphere"),
    ("air-", r"(?:has no|lacks an) atmosphere"),
    ("probes", r"(?:receives|is visited by) probes from (\w+)"),
]
# what can be asked of a thing
ASKS = [
    ("trade", r"What does (.+) do for a living\?|What is the trade of (.+)\?"),
    ("street", r"Where does (.+) live\?|In which street is the home of (.+)\?"),
    ("age", r"How old is (.+)\?|What is the age of (.+)\?"),
    ("choir", r"Does (.+) (?:sing in|belong to) the choir\?"),
    ("duty", r"What is the duty of (.+)\?|As what does (.+) serve\?"),
    ("port", r"Where does (.+) come from\?|From which port does (.+) hail\?"),
    ("years", r"For how many years has (.+) sailed\?|How many years has (.+) spent at sea\?"),
    ("swim", r"Can (.+) swim\?|Is (.+) able to swim\?"),
    ("part", r"As whom does (.+) appear\?|Which part does (.+) take\?"),
    ("instrument", r"Which instrument does (.+) practise\?"),
    ("instrument", r"On which instrument does (.+) take lessons\?"),
    ("lines", r"How many lines does (.+) have\?|How many lines must (.+) know by heart\?"),
    ("wig", r"Does (.+) wear a wig\?|Is (.+) given a wig\?"),
    ("breed", r"As what is (.+) registered\?|Which breed do the books give for (.+)\?"),
    ("bed", r"Where does (.+) (?:sleep|spend the night)\?"),
    ("weight", r"How many kilograms does (.+) weigh\?|What is the weight of (.+)\?"),
    ("sticks", r"Does (.+) fetch sticks\?|Is it usual for (.+) to fetch sticks\?"),
    ("cargo", r"What does (.+) carry\?|With what is (.+) loaded\?"),
    ("colour", r"Which colour is (.+) painted\?|What is the colour of (.+)\?"),
    ("length", r"How many metres long is (.+)\?|What is the length of (.+)\?"),
    ("flag", r"Does (.+) fly a flag\?|Has (.+) hoisted a flag\?"),
    ("surface", r"What covers (.+)\?|In what is (.+) covered\?"),
    ("finder", r"By whom was (.+) found\?|Who discovered (.+)\?"),
    ("orbit", r"How many days does (.+) need for an orbit\?"),
    ("orbit", r"In how many days does (.+) complete an orbit\?"),
    ("air", r"Does (.+) (?:have|hold) an atmosphere\?"),
]
# descriptions that lead from one thing to another
THE = [
    ("eggs", r"the villager (?:who sells eggs to|from whom) (\w+)(?: buys eggs)?"),
    ("knots", r"the sailor (?:who taught|from whom) (\w+) (?:learned )?knots"),
    ("standin", r"the player for whom (\w+) stands in|the player whose stand-in is (\w+)"),
    ("follows", r"the dog that (\w+) follows|the dog behind which (\w+) trots"),
    ("waits", r"the ship for which (\w+) waits|the ship that (\w+) has to wait for"),
    ("probes", r"the moon that sends probes to (\w+)|the moon whose probes visit (\w+)"),
]
EXTREMES = {
    "age": ("is older", "is the oldest", "is the youngest"),
    "years": ("has sailed longer", "has sailed the longest", "has sailed the shortest time"),
    "lines": ("has more lines", "has the most lines", "has the fewest lines"),
    "weight": ("is heavier", "is the heaviest", "is the lightest"),
    "length": ("is longer", "is the longest", "is the shortest"),
    "orbit": (
        "needs longer for an orbit",
        "needs the longest for an orbit",
        "needs the shortest time for an orbit",
    ),
}
PLURALS = [
    ("age", r"are older than (\d+)"),
    ("years", r"have sailed for more than (\d+) years"),
    ("lines", r"have more than (\d+) lines"),
    ("weight", r"weigh more than (\d+) kilograms"),
    ("length", r"are longer than (\d+) metres"),
    ("orbit", r"need more than (\d+) days for an orbit"),
    ("trade", r"work as (.+)"),
    ("street", r"live in (.+)"),
    ("duty", r"serve as (.+)"),
    ("port", r"come from (.+)"),
    ("part", r"appear as (.+)"),
    ("instrument", r"practise (.+)"),
    ("breed", r"are registered as (.+)"),
    ("bed", r"sleep (.+)"),
    ("cargo", r"carry (.+)"),
    ("colour", r"are painted (.+)"),
    ("surface", r"are covered in (.+)"),
    ("finder", r"were found by (.+)"),
    ("choir+", r"sing in the choir"),
    ("swim+", r"can swim"),
    ("wig+", r"wear a wig"),
    ("sticks+", r"fetch sticks"),
    ("flag+", r"fly a flag"),
    ("air+", r"have an atmosphere"),
]
NUMBERS = ["none", "one", "two", "three", "four", "five", "six"]
NAMES = re.compile(r"[A-Z]\w+(?:, [A-Z]\w+)* and [A-Z]\w+")


class Reader:
    """One sheet, read.

    Attributes:
        names: things, in the order in which the sheet lists them.
        facts: name → what is known → value.
    """

    def __init__(self, text: str) -> None:
        listed = NAMES.search(text)
        assert listed, f"no list of names: {text}"
        self.names = re.split(r", | and ", listed[0])
        self.facts: dict[str, dict[str, Any]] = defaultdict(dict)
        start = re.compile(rf"(?:- )?({'|'.join(self.names)}) (?=[a-z])")
        passed_over = 0
        for sentence in re.split(r"\.(?:\s+|$)", text):
            said = start.match(sentence)
            if not said:
                passed_over += bool(sentence)
                continue
            for phrase in re.split(r"; | and ", sentence[said.end() :]):
                what, value = read(phrase, PHRASES)
                assert what not in self.facts[said[1]], f"said twice: {what} of {said[1]}: {text}"
                self.facts[said[1]][what] = value
        assert passed_over <= 2, f"more than an opening cannot be read: {text}"
        # closed: what is known of one is known of all, so that counts and denials are exact
        assert len({frozenset(self.facts[name]) for name in self.names}) == 1

    def expected(self, grade: str, question: str) -> set[str]:
        """Every sentence, as `told` gives it, that answers `question` at `grade`."""
        answers: set[str] = getattr(self, f"_{grade}")(question)
        return answers

    def told(self, answer: str) -> str:
        """`answer` with its wording taken out of it, so that it can be compared."""
        word, comma, rest = answer.partition(", ")
        if comma and word in ("Yes", "No"):
            return f"{word}, {self.told(rest)}"
        name, _, phrase = answer.rstrip(".").partition(" ")
        if name in self.names and any(re.fullmatch(known, phrase) for _, known in PHRASES):
            what, value = read(phrase, PHRASES)
            return f"{name} {what} {value}"
        return answer

    def _who(self, words: str) -> str:
        """Return the thing that `words` name or describe."""
        if words in self.names:
            return words
        for what, pattern in THE:
            if found := re.fullmatch(pattern, words):
                return str(self.facts[next(filter(None, found.groups()))][what])
        described = re.fullmatch(r"the \w+ (?:who|that) (.+)", words)
        assert described, f"whom does it mean: {words}"
        what, value = read(described[1], PHRASES)
        (one,) = [name for name in self.names if self.facts[name][what] == value]
        return one

    def _fact(self, who: str, what: str) -> str:
        value = self.facts[who][what]
        said = f"{who} {what} {value}"
        return f"{'Yes' if value else 'No'}, {said}" if isinstance(value, bool) else said

    def _asked(self, question: str) -> tuple[str, str]:
        for what, pattern in ASKS:
            if found := re.fullmatch(pattern, question):
                return next(filter(None, found.groups())), what
        raise AssertionError(f"what does it ask: {question}")

    def _single_fact(self, question: str) -> set[str]:
        if named := re.fullmatch(r"(?:What is the name of|Name) (the .+)[?.]", question):
            what, name = next(
                (what, next(filter(None, found.groups())))
                for what, pattern in THE
                if (found := re.fullmatch(pattern, named[1]))
            )
            return {self._fact(name, what)}
        who, what = self._asked(question)
        assert who in self.names, f"more than a single fact: {question}"
        return {self._fact(who, what)}

    def _two_hop(self, question: str) -> set[str]:
        who, what = self._asked(question)
        assert who not in self.names, f"a single fact: {question}"
        return {self._fact(self._who(who), what)}

    def _comparison(self, question: str) -> set[str]:
        if two := re.fullmatch(r"(?:Who|Which \w+) (.+), (\w+) or (\w+)\?", question):
            said, among = two[1], [two[2], two[3]]
        elif two := re.fullmatch(r"Of the two \w+ (\w+) and (\w+), which one (.+)\?", question):
            said, among = two[3], [two[1], two[2]]
        else:
            all_of = re.fullmatch(
                r"(?:Which of the \w+|Among all the \w+, which one) (.+)\?", question
            )
            assert all_of, f"what does it compare: {question}"
            said, among = all_of[1], self.names
        ((what, place),) = [
            (w, words.index(said)) for w, words in EXTREMES.items() if said in words
        ]
        assert (place == 0) == (among is not self.names)
        chosen = (max, max, min)[place](among, key=lambda name: self.facts[name][what])
        return {f"{chosen} {said}."}

    def _having(self, phrase: str) -> list[str]:
        what, value = read(phrase, PLURALS)
        if isinstance(value, int) and not isinstance(value, bool):
            return [name for name in self.names if self.facts[name][what] > value]
        return [name for name in self.names if self.facts[name][what] == value]

    def _counting(self, question: str) -> set[str]:
        found = re.fullmatch(
            r"(?:How many of the \w+|What is the number of \w+ that) (.+)\?", question
        )
        assert found, f"what does it count: {question}"
        count, every = len(self._having(found[1])), len(self.names)
        if count == every:
            return {f"All {NUMBERS[every]}."}
        return {f"{NUMBERS[count].capitalize()} of the {NUMBERS[every]}."}

    def _negation(self, question: str) -> set[str]:
        doubted = re.fullmatch(
            r"(?:Is it|Would it be) (true|right|false|wrong) (?:to say )?that (\w+) (.+)\?",
            question,
        )
        if doubted:
            verdict, name, said = doubted.groups()
            what, value = read(said, PHRASES)
            holds = self.facts[name][what] == value
            yes = "Yes" if holds == (verdict in ("true", "right")) else "No"
            return {f"{yes}, {name} {what} {self.facts[name][what]}"}
        found = re.fullmatch(r"Which of the \w+ (.+)\?|Name all of the \w+ that (.+)\.", question)
        assert found, f"what does it deny: {question}"
        denied = found[1] or found[2]
        affirmed = re.sub(r"^do not ", "", re.sub(r"^(are|were) not ", r"\1 ", denied))
        affirmed = affirmed.replace("cannot", "can").replace("have no ", "have an ")
        affirmed = re.sub(r"^(wear|fly) no ", r"\1 a ", affirmed)
        assert affirmed != denied
        having = self._having(affirmed)
        others = [name for name in self.names if name not in having]
        if len(others) == 1:
            return {f"Only {others[0]}."}
        return {f"{', '.join(others[:-1])} and {others[-1]} {denied}."}


def read(phrase: str, patterns: list[tuple[str, str]]) -> tuple[str, Any]:
    """Return what a phrase says, and its value."""
    found = [(what, m) for what, known in patterns if (m := re.fullmatch(known, phrase))]
    assert len(found) == 1, f"{phrase!r} can be read in {len(found)} ways"
    what, match = found[0]
    if what[-1] in "+-":
        return what[:-1], what[-1] == "+"
    return what, int(match[1]) if match[1].isdigit() else match[1]
