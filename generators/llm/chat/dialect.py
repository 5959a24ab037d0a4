"""What a server takes in the body of a chat request, as it tells by refusing the rest.

Servers share one protocol and differ in its fields: newer models of OpenAI want
`max_completion_tokens`, some take one of `temperature` and `top_p` or neither, some have no `seed`,
some no system message. What is refused is renamed, left out or joined to the user's first message
once, and stays so.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.documents.strict_json import load_json
from generators.llm.chat.request import Request
from generators.llm.chat.structured import response_format
from generators.llm.endpoint.resolve import OPENAI_URL, ResolvedEndpoint

LimitField = Literal["max_tokens", "max_completion_tokens"]

_OTHER_LIMIT: Mapping[str, LimitField] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
# of two that are refused together, the first here is left out
_OPTIONAL = ("top_p", "temperature", "frequency_penalty", "seed")
_OPTIONAL_WITH_TOKENS: Mapping[str, Any] = {
    "return_token_ids": True,
    "stop_token_ids": None,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "seed": None,
}
"""Likewise where token ids are continued, and the value that a field must have to be left out
(None: any). How a reply is sampled is not left to the server there."""
_REFUSES = re.compile(
    r"unsupport|(?:not|n['’]t) (?:\w+ )?"
    r"(?:support|permit|allow|accept|recogni|available|enabled|implement|compatib|defined"
    r"|valid (?:param|for))"
    r"|incompatib|unrecogni|unknown|unexpected|extraneous|extra[_ ](?:input|field|argument|forbid)"
    r"|additional propert|cannot both|cannot be (?:both|used|set|specified)|mutually exclusive"
    r"|not both|removed|invalid (?:message )?role|不支持|不允许|未知"
    r"|must be (?:set to )?(?:1|1\.0|the default)(?!\.?\d| ?(?:to|or|and|-))"
    r"|only one|one of|only [^\s,]+ (?:is|are|value)|may only be|fixed at|unset|deprecated"
    r"|(?:use|set|pass|send|provide|specify)\b.{0,60}\binstead",
    re.IGNORECASE,
)
_OUT_OF_RANGE = re.compile(
    r"(?!.*\bunset\b).*"
    r"(?:must be (?:between|positive|greater|less|at (?:least|most)|in the range|[<>])"
    r"|out of range|(?:above|below) (?:the )?(?:max|min)|too (?:large|high|low|small))",
    re.IGNORECASE | re.DOTALL,
)
"""What a server says of a value, and not of the field."""
_TAKEN = re.compile(
    r"\bexpected one of\b.*|(?<!not )\b(?:supported|allowed|valid|accepted|known) "
    r"(?:fields|parameters|params|properties|keys|arguments)\b.*",
    re.IGNORECASE | re.DOTALL,
)
"""What a server lists as the fields that it does take."""
_SYSTEM = re.compile(
    r"system['\"`]? (?:role|message|prompt|instruction)|role['\"`]?[,:]? ['\"`]?system"
    r"|does not support ['\"`]system|developer instruction",
    re.IGNORECASE,
)
_OTHER_ROLES = re.compile(
    r"only user(?:,| and) (?:assistant|model) roles|roles must alternate"
    r"|should be ['\"]user['\"] or ['\"](?:assistant|model)",
    re.IGNORECASE,
)
"""What some templates say of the roles that they take, in place of a system message."""
_ECHOES = frozenset(
    ("failed_generation", "generated_text", "input", "body", "request", "messages", "prompt")
)
"""Names in an error under which servers repeat what was sent, or what the model wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatDialect:
    """The fields of a request's body that a server takes.

    Attributes:
        limit_field: the field of the longest reply.
        omitted: fields of sampling that are left out.
        system_joined: whether a system message is sent as the beginning of the user's first.
    """

    limit_field: LimitField = "max_tokens"
    omitted: tuple[str, ...] = ()
    system_joined: bool = False

    @classmethod
    def of(cls, endpoint: ResolvedEndpoint) -> ChatDialect:
        """Choose what to begin with: OpenAI has renamed a field that all others know."""
        is_openai = endpoint.url_without_query == OPENAI_URL
        return cls(limit_field="max_completion_tokens" if is_openai else "max_tokens")

    @classmethod
    def from_json(cls, text: str) -> ChatDialect:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "omitted": tuple(fields["omitted"])})

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(dataclasses.asdict(self))

    def body(self, request: Request, endpoint: ResolvedEndpoint) -> dict[str, Any]:
        """Build the body of `request`: the same in every mode."""
        settings = {**request.sampling.model_dump(exclude={"seed"}), "seed": request.seed}
        asked: dict[str, Any] = {"prompt": list(request.prompt_ids)}
        if not request.prompt_ids:
            messages = request.messages
            if self.system_joined and [role for role, _ in messages[:2]] == ["system", "user"]:
                (_, system), (_, user), *rest = messages
                messages = (("user", f"{system}\n\n{user}"), *rest)
            asked = {"messages": [{"role": role, "content": said} for role, said in messages]}
        limit = "max_tokens" if request.prompt_ids else self.limit_field
        return {
            "model": endpoint.model,
            limit: request.max_tokens + endpoint.thinking_tokens,
            **response_format(request),
            **({"logprobs": 1} if request.logprobs else {}),
            **{
                name: value
                for name, value in settings.items()
                if value is not None and name not in self.omitted
            },
            **(
                {"reasoning_effort": endpoint.reasoning_effort} if endpoint.reasoning_effort else {}
            ),
            **{k: v for k, v in endpoint.extra_body.items() if k not in self.omitted},
            **asked,
        }

    def adapted(self, sent: Mapping[str, Any], refusal: str) -> ChatDialect | None:
        """Adapt to what a server says of a body that it refused.

        Args:
            sent: the body.
            refusal: the text of the response to it.

        Returns:
            the dialect to go on with; None where the refusal is about something else.
        """
        said = " ".join(_TAKEN.sub("", one) for one in _own_words(refusal))
        roles = [message["role"] for message in sent.get("messages", ())[:2]]
        refuses = bool(_REFUSES.search(said))
        no_system = _OTHER_ROLES.search(said) or (refuses and _SYSTEM.search(said))
        if roles == ["system", "user"] and no_system:
            return dataclasses.replace(self, system_joined=True)
        if not refuses or _OUT_OF_RANGE.match(said):
            return None
        if "prompt" in sent:
            named = [
                field
                for field, value in _OPTIONAL_WITH_TOKENS.items()
                if field in sent and value in (None, sent[field]) and _names(said, field)
            ]
            # all at once: many servers list every field that they do not know
            return dataclasses.replace(self, omitted=(*self.omitted, *named)) if named else None
        for field, other in _OTHER_LIMIT.items():
            # the other's name in the text as well: it is what to use instead
            if field in sent and self.limit_field == field and _names(said, field):
                return dataclasses.replace(self, limit_field=other)
        for field in _OPTIONAL:
            if field in sent and field not in self.omitted and _names(said, field):
                return dataclasses.replace(self, omitted=(*self.omitted, field))
        return None

    def difference(self, before: ChatDialect) -> str:
        """Say what has changed since `before`, for a line to the user."""
        left_out = [field for field in self.omitted if field not in before.omitted]
        if left_out:
            verb = "is" if len(left_out) == 1 else "are"
            return f"refuses {', '.join(left_out)}, which {verb} left out from now on"
        if self.system_joined and not before.system_joined:
            return "refuses system messages, which begin the user's first message from now on"
        return f"takes {self.limit_field} in place of {before.limit_field}"


def _own_words(refusal: str) -> Iterator[str]:
    """Yield the texts of a refusal that are the server's own, out of JSON however deep."""
    try:
        value = load_json(refusal)
    except ValueError:
        value = None
    if not isinstance(value, dict | list):
        yield refusal
        return
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield from _own_words(one)  # gateways put a provider's whole body into a text
        elif isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            left += [inner for name, inner in one.items() if name not in _ECHOES]


def _names(said: str, field: str) -> bool:
    """Tell whether a text names a field: `top_p`, `topP`, `top-p` or `Top P`, or the penalty."""
    spelled = "[_ -]?".join(field.split("_"))
    if field == "frequency_penalty":
        spelled = r"(?:(?:frequency|presence)[_ -]?)?penalty"
    return bool(re.search(rf"(?<![A-Za-z_]){spelled}(?![A-Za-z_])", said, re.IGNORECASE))
