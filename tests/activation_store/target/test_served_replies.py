"""Replies of a served target: those it writes here, checked first, with the request log."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import stores
import torch
from http_endpoint import ScriptedEndpoint, ScriptedResponse
from pydantic import ValidationError

from activation_store.model_files.files import ModelFiles
from activation_store.target.config import CompleteConfig
from activation_store.target.generation import Sampling, generate_ids
from activation_store.target.load import load_model, load_tokenizer
from activation_store.target.replies import CompleteResult
from activation_store.target.served_replies import count_chosen
from activation_store.tokens.tokens import COMPLETION_IDS, ends_of_reply
from core.errors import EndpointError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation
from generators.llm.endpoint.config import EndpointConfig
from generators.llm.endpoint.resolve import open_endpoint
from generators.llm.session import LLMSession

Serve = Callable[[Mapping[str, Any]], Any]


@pytest.fixture(scope="module")
def serve(model: ModelFiles) -> Serve:
    """Continue token ids as vLLM does: with what was asked, and the ids of the reply."""
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    tokenizer = load_tokenizer(model)
    lock = threading.Lock()

    def reply(body: Mapping[str, Any]) -> dict[str, Any]:
        ends = body.get("stop_token_ids", ends_of_reply(tokenizer))
        sampling = Sampling(
            max_tokens=body["max_tokens"], repetition_penalty=body["repetition_penalty"]
        )
        with lock:
            (ids,) = generate_ids(net, [body["prompt"]], ends, sampling)
        finish = "stop" if ids[-1] in ends else "length"
        told = {"token_ids": ids} if body.get("return_token_ids") else {}
        return {"text": tokenizer.decode(ids), "finish_reason": finish, **told}

    return reply


def run(
    folder: Path, rows: Path, model: ModelFiles, base_url: str | None = None, **changes: Any
) -> CompleteResult:
    """Complete the rows, by the server at an address or here."""
    endpoint = None if base_url is None else EndpointConfig(model="served", base_url=base_url)
    config = CompleteConfig(max_tokens=6, endpoint=endpoint, **{"check_rows": 3, **changes})
    if endpoint is None:
        return stores.reply(rows, folder, model, config)
    with open_endpoint(endpoint) as opened:
        session = LLMSession(log=folder / "log.sqlite", endpoint=opened)
        return stores.reply(rows, folder, model, config, session=session)


def written(folder: Path) -> list[Conversation]:
    rows = read_conversations(folder / "out" / CONVERSATIONS_FILE)
    return [row for row in rows if row.completion_origin == "target"]


def test_a_server_gives_the_rows_that_the_target_gives_here(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve
) -> None:
    run(tmp_path / "here", rows, model)
    with ScriptedEndpoint(serve) as endpoint:
        found = run(tmp_path / "served", rows, model, endpoint.base_url)
    assert written(tmp_path / "served") == written(tmp_path / "here") != []
    assert found.served is not None
    assert found.served["agreement"]["share"] == 1.0
    assert found.served["requests"] == len({tuple(one["prompt"]) for one in endpoint.requests})


def test_replies_in_the_log_need_no_server(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve
) -> None:
    with ScriptedEndpoint(serve) as endpoint:
        run(tmp_path, rows, model, endpoint.base_url)
    first = written(tmp_path)
    (part,) = (tmp_path / "work").iterdir()
    part.unlink()
    again = run(tmp_path, rows, model, endpoint.base_url)
    assert written(tmp_path) == first
    assert again.served is not None
    assert again.served["requests"] == 0


def test_another_model_behind_the_address_is_refused_after_the_sample(
    tmp_path: Path, rows: Path, model: ModelFiles
) -> None:
    other = {"text": "x", "token_ids": [5, 6, 7, 5, 6, 7], "finish_reason": "length"}
    with (
        ScriptedEndpoint(lambda body: other) as endpoint,
        pytest.raises(EndpointError, match=r"does not serve .* expected at least 90.0%"),
    ):
        run(tmp_path, rows, model, endpoint.base_url)
    assert len(endpoint.requests) == 3
    assert not list((tmp_path / "work").iterdir())


def test_the_sample_is_greedy_where_replies_are_sampled(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve
) -> None:
    with ScriptedEndpoint(serve) as endpoint:
        run(tmp_path, rows, model, endpoint.base_url, temperature=0.7, top_k=20)
    temperatures = [one["temperature"] for one in endpoint.requests]
    assert temperatures[:3] == [0.0] * 3
    assert set(temperatures[3:]) == {0.7}
    assert {one["top_k"] for one in endpoint.requests} == {20}


@pytest.mark.parametrize("check_rows", [0, 2])
def test_ids_that_come_with_log_probabilities_are_asked_for_and_used(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve, check_rows: int
) -> None:
    def as_llama_cpp(body: Mapping[str, Any]) -> dict[str, Any]:
        made = serve({**body, "return_token_ids": True})
        told = [{"id": one, "logprob": -0.1} for one in made.pop("token_ids")]
        # other tokens than those of the text: only the ids can tell
        return {**made, "text": "?", "logprobs": {"content": told} if "logprobs" in body else None}

    run(tmp_path / "here", rows, model)
    with ScriptedEndpoint(as_llama_cpp) as endpoint:
        found = run(tmp_path / "served", rows, model, endpoint.base_url, check_rows=check_rows)
    assert written(tmp_path / "served") == written(tmp_path / "here") != []
    assert found.dropped == {}
    assert ["logprobs" in body for body in endpoint.requests].count(False) == 1


@pytest.mark.parametrize(("counted", "kept"), [(0, True), (1, True), (3, False)])
def test_text_alone_is_kept_where_its_tokens_are_as_many_as_the_server_counted(
    tmp_path: Path, rows: Path, model: ModelFiles, counted: int, kept: bool
) -> None:
    tokenizer = load_tokenizer(model)
    ids = tokenizer("I am fine.", add_special_tokens=False)["input_ids"]

    class Server(ScriptedEndpoint):
        def complete(self, body: dict[str, Any]) -> ScriptedResponse:
            made = super().complete(body)
            made.body["usage"]["completion_tokens"] = len(ids) + counted
            return made

    with Server(lambda body: {"text": "I am fine."}) as endpoint:
        found = run(tmp_path, rows, model, endpoint.base_url, check_rows=0)
    asked = found.completions + found.dropped.get("tokens", 0)
    assert found.completions == (asked if kept else 0)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert all(row.provenance[COMPLETION_IDS] == [*ids, end] for row in written(tmp_path))


def test_ids_that_are_fewer_than_the_server_counted_are_not_used(
    tmp_path: Path, rows: Path, model: ModelFiles
) -> None:
    tokenizer = load_tokenizer(model)
    ids = tokenizer("I am fine.", add_special_tokens=False)["input_ids"]

    class Server(ScriptedEndpoint):
        def complete(self, body: dict[str, Any]) -> ScriptedResponse:
            made = super().complete(body)
            made.body["usage"]["completion_tokens"] = len(ids)
            return made

    lacking = {"text": "I am fine.", "logprobs": {"content": [{"id": one} for one in ids[1:]]}}
    with Server(lambda body: lacking) as endpoint:
        run(tmp_path, rows, model, endpoint.base_url, check_rows=0)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert {tuple(row.provenance[COMPLETION_IDS]) for row in written(tmp_path)} == {(*ids, end)}


def test_a_reply_that_was_cut_is_unfinished(tmp_path: Path, rows: Path, model: ModelFiles) -> None:
    cut = {"text": "I am", "finish_reason": "length"}
    with ScriptedEndpoint(lambda body: cut) as endpoint:
        found = run(tmp_path, rows, model, endpoint.base_url, check_rows=0, unfinished="drop")
    assert found.completions == 0
    assert set(found.dropped) == {"unfinished"}


class Strict(ScriptedEndpoint):
    """A server that refuses one field of a request's body."""

    refused = ""

    def complete(self, body: dict[str, Any]) -> ScriptedResponse:
        if self.refused in body:
            return ScriptedResponse(400, {"error": {"message": f"Unknown field {self.refused}"}})
        return super().complete(body)


def test_a_field_that_changes_nothing_is_left_out_where_it_is_refused(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve
) -> None:
    with Strict(serve) as endpoint:
        endpoint.refused = "stop_token_ids"
        run(tmp_path / "served", rows, model, endpoint.base_url)
    run(tmp_path / "here", rows, model)
    assert written(tmp_path / "served") == written(tmp_path / "here")


def test_fields_that_are_refused_together_are_left_out_together(
    tmp_path: Path, rows: Path, model: ModelFiles
) -> None:
    own = {"top_k", "min_p", "repetition_penalty", "stop_token_ids", "return_token_ids"}

    class ServerWithoutExtras(ScriptedEndpoint):
        def complete(self, body: dict[str, Any]) -> ScriptedResponse:
            if extra := own & set(body):
                said = f"Unexpected fields in the request: {extra}"
                return ScriptedResponse(422, {"detail": said})
            return super().complete(body)

    with ServerWithoutExtras(lambda body: {"text": "I am fine."}) as endpoint:
        run(tmp_path, rows, model, endpoint.base_url, check_rows=1, min_agreement=0)
    assert [bool(own & set(body)) for body in endpoint.requests[:3]] == [True, False, False]


def test_what_a_server_refuses_is_found_out_once_and_kept(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve
) -> None:
    with Strict(serve) as endpoint:
        endpoint.refused = "stop_token_ids"
        run(tmp_path, rows, model, endpoint.base_url)
        asked = len(endpoint.requests)
        shutil.rmtree(tmp_path / "work")
        run(tmp_path, rows, model, endpoint.base_url, seed=1)
    assert endpoint.requests[asked:]
    assert all("stop_token_ids" not in body for body in endpoint.requests[asked:])


def test_a_server_that_cannot_sample_as_asked_is_refused(
    tmp_path: Path, rows: Path, model: ModelFiles, serve: Serve
) -> None:
    with Strict(serve) as endpoint:
        endpoint.refused = "top_k"
        with pytest.raises(EndpointError, match=r"none of 3 trial .*Unknown field top_k"):
            run(tmp_path, rows, model, endpoint.base_url, temperature=1.0, top_k=20)


def test_a_server_without_completions_of_tokens_is_one_line(
    tmp_path: Path, rows: Path, model: ModelFiles
) -> None:
    class ChatOnly(ScriptedEndpoint):
        def complete(self, body: dict[str, Any]) -> ScriptedResponse:
            return ScriptedResponse(400, {"error": {"message": "prompt: expected a string"}})

    with (
        ChatOnly() as endpoint,
        pytest.raises(EndpointError, match=r"token ids to /completions.*expected a string"),
    ):
        run(tmp_path, rows, model, endpoint.base_url)


def test_tokens_that_the_target_would_choose_are_counted_under_its_penalty(
    model: ModelFiles,
) -> None:
    net = load_model(model, dtype="float32", device=torch.device("cpu"))
    prompt = list(range(5, 25))
    for penalty in (1.0, 5.0):
        sampling = Sampling(max_tokens=8, repetition_penalty=penalty)
        (reply,) = generate_ids(net, [prompt], [], sampling)
        assert count_chosen(net, prompt, reply, repetition_penalty=penalty) == 8
        assert count_chosen(net, prompt, [*reply[:-1], (reply[-1] + 1) % 50]) < 8


@pytest.mark.parametrize(
    "wrong", [{"mode": "batch"}, {"thinking_tokens": 5}, {"reasoning_effort": "low"}]
)
def test_settings_of_chats_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(wrong))} is not for replies"):
        CompleteConfig(endpoint=EndpointConfig(model="served", **wrong))
