r"""An LLM judges items by a rubric, in two passes whose agreement is measured.

A rubric is a prompt file (generators.llm.prompt_files) whose reply has a property `verdict` with
an `enum`, and whose `user` text names `{{verdicts}}` where these are listed:

```yaml
version: 1
system: what is judged, and what each verdict means
user: "Question: {{question}}\nAnswer: {{answer}}\nVerdict, one of {{verdicts}}:"
examples: [...]
reply:
  verdict: {type: string, enum: [right, vague, wrong]}
max_tokens: 20
```

An item is judged in two passes that differ in the sampling's seed and in the order in which the
verdicts are listed: so a judge that guesses, or takes what stands first, disagrees with itself.
Requests go through the same client and log as all others, and replies are asked for once.

    rubric = rubric_named(texts, "judge_answer")
    judgement = await judge(client, rubric, [{"question": q, "answer": a, "control": c}, ...])
    judgement.shares(), judgement.agreement.kappa
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.progress import Progress, silent
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.reply_json import Rejection, parse_reply
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.prompt_files import PromptFiles, PromptTemplate
from generators.quality.agreement import Agreement, agreement
from generators.quality.findings import Verdicts

SAMPLING = SamplingConfig(temperature=0.3)
"""How verdicts are sampled: warm enough that a judge in doubt shows it in its second pass."""
VERDICT = "verdict"
"""Property of the reply that holds the verdict."""
_SLOT = "{{verdicts}}"


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """A rubric: what is judged, and the verdicts that an LLM may give.

    Attributes:
        name: name of its file.
        digest: sha256 of its file; it stands beside every number that a judge gave.
        verdicts: the verdicts allowed, best first.
    """

    name: str
    digest: str
    verdicts: tuple[str, ...]
    _prompts: tuple[PromptTemplate, PromptTemplate]

    def request(self, item: Mapping[str, str], number: int) -> Request:
        """Build the request of pass `number` (from 0) on `item`, whose values fill the template.

        Raises:
            ConfigError: the template names a slot that `item` lacks.
        """
        prompt = self._prompts[number % 2]
        return Request(
            messages=prompt.messages(item),
            schema=prompt.schema,
            name=self.name,
            max_tokens=prompt.max_tokens,
            sampling=SAMPLING,
            sample=number,
        )

    def read(self, outcome: Outcome) -> str | None:
        """Read the verdict of a reply; None where there is no readable one."""
        reply = parse_reply(outcome, self._prompts[0].schema)
        return None if isinstance(reply, Rejection) else reply[VERDICT]


def rubric_named(texts: PromptFiles, name: str) -> Rubric:
    """Load the rubric in the prompt file `name`.

    Raises:
        ConfigError: the file is wrong, or differs in its verdicts from the packaged one that it
            replaces; the text names file and field.
    """
    prompt = texts.prompt(name)
    verdicts: list[str] = prompt.reply[VERDICT]["enum"]
    return Rubric(
        name=name,
        digest=prompt.digest,
        verdicts=tuple(verdicts),
        _prompts=(_listing(prompt, verdicts), _listing(prompt, verdicts[::-1])),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemVerdicts:
    """The verdicts on one item, one a pass; None where a pass gave none that can be read."""

    verdicts: tuple[str | None, ...]

    @property
    def verdict(self) -> str | None:
        """That of the first pass."""
        return self.verdicts[0]

    @property
    def agreed(self) -> bool:
        """Whether every pass gave the same verdict."""
        return None not in self.verdicts and len(set(self.verdicts)) == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Verdicts on many items.

    Attributes:
        rubric: its name and digest.
        items: in the order in which they were given.
        agreement: of the first two passes; None without an item.
    """

    rubric: Rubric
    items: tuple[ItemVerdicts, ...]
    agreement: Agreement | None

    @property
    def unread(self) -> int:
        """Items without a readable verdict in the first pass."""
        return sum(item.verdict is None for item in self.items)

    def shares(self) -> dict[str, float]:
        """Return each verdict's share among the first pass's readable ones; empty without any."""
        found = Counter(item.verdict for item in self.items if item.verdict is not None)
        return {v: found[v] / found.total() for v in self.rubric.verdicts} if found else {}

    def summary(self) -> Verdicts:
        """Return the numbers that a record or a report keeps."""
        return Verdicts(
            rubric=self.rubric.name,
            digest=self.rubric.digest,
            verdicts=self.rubric.verdicts,
            n=len(self.items),
            unread=self.unread,
            shares=self.shares(),
            agreement=self.agreement,
        )


async def judge(
    client: LLMClient,
    rubric: Rubric,
    items: Sequence[Mapping[str, str]],
    *,
    passes: int = 2,
    progress: Progress = silent,
) -> Judgement:
    """Judge each of `items` by `rubric`.

    Args:
        client: what is asked.
        rubric: by which is judged.
        items: what fills the rubric's template, one mapping an item.
        passes: how often each is judged, at least twice.
        progress: told the verdicts had.

    Raises:
        EndpointError: the endpoint cannot be used.
        BudgetError: the money allowed is spent.
        ConfigError: the template names a slot that an item lacks.
    """
    requests = [rubric.request(item, number) for number in range(passes) for item in items]
    done = 0

    def heard(outcomes: int) -> None:
        nonlocal done
        done += outcomes
        progress(done, len(requests), "verdicts")

    read = [rubric.read(outcome) for outcome in await client.complete_all(requests, heard)]
    by_pass = [read[start : start + len(items)] for start in range(0, len(read), len(items) or 1)]
    judged = tuple(ItemVerdicts(verdicts=found) for found in zip(*by_pass, strict=True))
    agreed = agreement(by_pass[0], by_pass[1]) if len(by_pass) > 1 else None
    return Judgement(rubric=rubric, items=judged, agreement=agreed)


def _listing(prompt: PromptTemplate, verdicts: Sequence[str]) -> PromptTemplate:
    """Return `prompt` with `verdicts` listed in this order, in its text and in its schema."""
    rule = {**prompt.reply[VERDICT], "enum": list(verdicts)}
    return dataclasses.replace(
        prompt,
        user=prompt.user.replace(_SLOT, ", ".join(verdicts)),
        reply={**prompt.reply, VERDICT: rule},
    )
