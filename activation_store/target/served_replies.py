"""Replies of the target behind an OpenAI-compatible server, such as vLLM's.

The server continues token ids (`/completions` with ids as the prompt), so that its chat template
takes no part. It returns the ids that it generated if it can (`return_token_ids` of vLLM,
`logprobs` of llama.cpp); otherwise its text is tokenized, and accepted if the ids decode to the
same text and match the server's count.

Before the long work a sample is answered greedily, and the target itself reads these replies: the
share of tokens that it would have chosen too shows whether the server runs the same model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from activation_store.target.capture import without_look
from activation_store.target.config import CompleteConfig
from activation_store.target.generation import up_to_end
from activation_store.target.load import load_tokenizer
from activation_store.target.reply_batches import ReplyJob
from activation_store.target.reply_text import ReplyReader, StimulusPrompt, TargetReply
from core.documents.canonical import canonical_json
from core.errors import EndpointError
from core.records.tables import Conversation
from generators.llm.cached_client import LLMClient
from generators.llm.chat.reply import Outcome
from generators.llm.chat.request import Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.session import LLMSession

_REPLIED = ("answer", "cut_off")
"""Statuses of a reply that has tokens."""


def write_served(
    job: ReplyJob,
    batches: Mapping[int, Sequence[Conversation]],
    keep: Callable[[int, list[TargetReply]], None],
    sample: Sequence[Conversation],
    session: LLMSession,
) -> dict[str, Any]:
    """Have the endpoint write the replies to `batches`.

    Args:
        job: the target, how it replies, and where it reads the sample.
        batches: conversations up to the stimulus, by the number of their batch.
        keep: given the number of a batch and its replies.
        sample: conversations whose greedy replies are compared with the target first.
        session: the endpoint, and the log of its replies.

    Returns:
        requests, tokens and cost; `agreement`: `tokens` of the sample, and the `share` of them that
        the target itself would have chosen.

    Raises:
        EndpointError: the endpoint cannot be used, or its replies are not the target's.
        BudgetError: the money allowed is spent.
    """
    reader, config = ReplyReader(load_tokenizer(job.model)), job.config
    endpoint = session.require_endpoint("complete.endpoint", ["replies"])
    endpoint = _with_settings(endpoint, config, reader)

    async def work(client: LLMClient) -> dict[str, Any]:
        served = _ServedTarget(client, reader, config)
        first = sample or next(iter(batches.values()))
        await served.settle(first, temperature=0.0 if sample else config.temperature)
        prompts, written = await served.ask(sample, temperature=0.0)
        agreement = _check(prompts, written, endpoint, job)
        for i, rows in batches.items():
            keep(i, reader.replies(*await served.ask(rows, temperature=config.temperature)))
        return agreement

    agreement, client = session.run(endpoint, work)
    return {**client.usage.to_json(), "agreement": agreement}


def _with_settings(
    endpoint: ResolvedEndpoint, config: CompleteConfig, reader: ReplyReader
) -> ResolvedEndpoint:
    """Return the endpoint with all that shapes a reply, which a server may set otherwise."""
    fields = {
        "top_k": config.top_k,
        "min_p": 0.0,
        "repetition_penalty": config.repetition_penalty,
        "stop_token_ids": sorted(reader.ends),
        "return_token_ids": True,
    }
    return dataclasses.replace(
        endpoint,
        extra_body={**endpoint.extra_body, **fields},
        identity=f"{endpoint.identity} {canonical_json(fields).decode()}",
    )


class _ServedTarget:
    """The target behind an endpoint."""

    def __init__(self, client: LLMClient, reader: ReplyReader, config: CompleteConfig) -> None:
        self._client, self._reader, self._config = client, reader, config
        self._logprobs = False

    async def settle(self, rows: Sequence[Conversation], *, temperature: float) -> None:
        """Ask for log-probabilities from now on if they alone bring token ids.

        The first row that has a prompt is asked for, and once more if its reply has no ids.
        """
        prompts = self._reader.prompts(rows)
        prompt = next((own for own in prompts if isinstance(own, StimulusPrompt)), None)
        if prompt is None:
            return
        for logprobs in (False, True):
            request = self._request(prompt, temperature, logprobs)
            (outcome,) = await self._client.complete_all([request])
            if outcome.token_ids is not None:
                self._logprobs = logprobs
                return
            if outcome.status not in _REPLIED:
                return

    async def ask(
        self, rows: Sequence[Conversation], *, temperature: float
    ) -> tuple[list[StimulusPrompt | TargetReply], list[list[int] | TargetReply]]:
        """Return the prompt of each row, and of each that has one what followed it."""
        prompts = self._reader.prompts(rows)
        asked = [own for own in prompts if isinstance(own, StimulusPrompt)]
        requests = [self._request(own, temperature, self._logprobs) for own in asked]
        outcomes = await self._client.complete_all(requests)
        return prompts, [self._ids(*own) for own in zip(asked, outcomes, strict=True)]

    def _request(self, prompt: StimulusPrompt, temperature: float, logprobs: bool) -> Request:
        config = self._config
        return Request(
            prompt_ids=tuple(prompt.ids),
            form="tokens",
            name="reply",
            max_tokens=config.max_tokens,
            sampling=SamplingConfig(temperature=temperature, top_p=config.top_p, seed=config.seed),
            logprobs=logprobs,
        )

    def _ids(self, prompt: StimulusPrompt, outcome: Outcome) -> list[int] | TargetReply:
        """Return the token ids of a reply with its end of turn, or why there are none."""
        if outcome.status not in _REPLIED:
            return TargetReply(reason=outcome.status, detail=outcome.detail)
        told, count = outcome.token_ids, outcome.tokens.completion
        # of a character that has several tokens, llama.cpp tells the first alone
        if told is not None and (outcome.estimated or len(told) == count):
            ids = up_to_end([*told], self._reader.ends)
        else:
            read = self._reader.ids_of(prompt, outcome.content)
            counted = (count, count - 1)  # some servers count the end of turn, others do not
            if read is None or (not outcome.estimated and len(read) not in counted):
                detail = "the server's text has other tokens than those that it wrote"
                return TargetReply(reason="tokens", detail=detail)
            ids = read
        ended = bool(ids) and ids[-1] in self._reader.ends
        if outcome.status == "answer" and not ended and self._reader.end is not None:
            ids.append(self._reader.end)
        return ids


def _check(
    prompts: Sequence[StimulusPrompt | TargetReply],
    written: Sequence[list[int] | TargetReply],
    endpoint: ResolvedEndpoint,
    job: ReplyJob,
) -> dict[str, Any]:
    """Compare greedy replies of the endpoint with what the target itself would choose.

    Raises:
        EndpointError: there is nothing to compare, or too few tokens are the same.
    """
    asked = [own for own in prompts if isinstance(own, StimulusPrompt)]
    replies = [
        (prompt.ids, own)
        for prompt, own in zip(asked, written, strict=True)
        if not isinstance(own, TargetReply)
    ]
    if not replies:
        if not asked:
            return {"tokens": 0, "share": None}
        why = next(own for own in written if isinstance(own, TargetReply))
        raise EndpointError(
            f"complete.endpoint {endpoint.address}: none of {len(asked)} trial prompts, given as "
            f"token ids to /completions, got a usable reply ({why.reason}: {why.detail}). Change "
            "the setting that this names; where it is the token ids, use a server that takes them "
            "(vLLM, llama.cpp), or leave complete.endpoint out."
        )
    config, net = job.config, job.load_target()
    agreed = sum(
        count_chosen(net, *own, repetition_penalty=config.repetition_penalty) for own in replies
    )
    tokens = sum(len(ids) for _, ids in replies)
    if agreed < config.min_agreement * tokens:
        raise EndpointError(
            f"complete.endpoint {endpoint.address}: it does not serve {job.model.ref}, or not "
            f"alike: of {tokens} tokens in {len(replies)} greedy replies the target itself would "
            f"choose {agreed / tokens:.1%}, expected at least {config.min_agreement:.1%}. Serve "
            "the same weights and adapter; for quantised ones lower complete.min_agreement."
        )
    return {"tokens": tokens, "share": agreed / tokens}


def count_chosen(
    net: Any, prompt: Sequence[int], reply: Sequence[int], *, repetition_penalty: float = 1.0
) -> int:
    """Count the tokens of a reply that a model itself would choose, given those before them."""
    device = next(net.parameters()).device
    ids = torch.tensor([[*prompt, *reply]], device=device)
    penalty = RepetitionPenaltyLogitsProcessor(repetition_penalty)
    with torch.no_grad():
        kept = len(reply) + 1
        logits = net(input_ids=ids, logits_to_keep=kept, **without_look(net)).logits[0]
    chosen = [
        penalty(ids[:, : len(prompt) + t], logits[t : t + 1].float()).argmax()
        for t in range(len(reply))
    ]
    return int((torch.stack(chosen).to(device) == ids[0, len(prompt) :]).sum().cpu())
