"""The LLM that a step asks, opened from the experiment's section."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.processes.task_pool import TaskPool
from core.runtime import Runtime
from generators.llm.endpoint.config import EMBEDDED, EndpointConfig
from pipelines.artifacts.records import StepResult
from pipelines.steps.shared.step import StepCall

if TYPE_CHECKING:
    from generators.llm.prompt_files import PromptFiles
    from generators.llm.session import LLMSession

GENERATE = "generate.endpoint"
"""Settings of the LLM that writes rows, by which the endpoint's own errors call them."""
REQUESTS = "requests.sqlite"
"""The request log, in the artifact root: a reply that was received once serves every run there."""


def embedded_weights(endpoint: EndpointConfig) -> Path | None:
    """Return the GGUF file of the embedded model; None where another model is asked.

    Raises:
        ModelError: it is not installed.
    """
    from activation_store.model_files.embedded_model import gguf_path

    return gguf_path() if endpoint.model == EMBEDDED else None


def weights_identity(endpoint: EndpointConfig) -> str | None:
    """Return what the embedded model's weights are, in the form in which they are served."""
    from activation_store.model_files.gguf import served_identity

    gguf = embedded_weights(endpoint)
    return None if gguf is None else served_identity(gguf)


def judge_identity(endpoint: EndpointConfig) -> dict[str, Any]:
    """Return what decides the verdicts of a judge, besides what it is asked."""
    from generators.llm.endpoint.resolve import model_identity

    return {
        "judge": model_identity(endpoint, weights_identity(endpoint)),
        "structured": endpoint.structured,
    }


def llm_result(counts: Mapping[str, Any]) -> StepResult:
    """Return the result of a step that asked an LLM; its counts have `tokens` and `cost_usd`."""
    return StepResult(counts=counts, tokens=sum(counts["tokens"].values()), cost=counts["cost_usd"])


@contextlib.contextmanager
def open_session(
    call: StepCall, endpoint: EndpointConfig | None, texts: PromptFiles, section: str = GENERATE
) -> Iterator[LLMSession]:
    """Open the endpoint of a step's section, as `open_llm`.

    Args:
        call: the execution of the step.
        endpoint: the section's; None where no LLM is needed.
        texts: prompts, seeds and rubrics.
        section: where the experiment has the endpoint's settings, for errors and lines.
    """

    def named(text: str) -> str:
        return text.replace(GENERATE, section)

    def say(line: str) -> None:
        call.say(named(line))

    runtime = call.experiment.runtime
    opened = open_llm(call.root, endpoint, texts, runtime=runtime, say=say, pool=call.pool)
    with _renamed_errors(named), opened as session:
        yield session


@contextlib.contextmanager
def open_llm(
    root: Path,
    endpoint: EndpointConfig | None,
    texts: PromptFiles,
    *,
    runtime: Runtime,
    say: Callable[[str], None],
    pool: TaskPool | None = None,
) -> Iterator[LLMSession]:
    """Open an endpoint for as long as the context lasts.

    Leave it before torch works: the embedded server shares the machine's threads.

    Args:
        root: folder of the artifact root, which has the request log.
        endpoint: the section's; None where no LLM is needed.
        texts: prompts, seeds and rubrics.
        runtime: threads, and most concurrent requests.
        say: prints a line for the user.
        pool: runs pieces of long lists of requests side by side; None for none.
    """
    from activation_store.model_files.gguf import served
    from generators.llm.endpoint.resolve import open_endpoint
    from generators.llm.session import LLMSession

    with contextlib.ExitStack() as stack:
        opened = None
        if endpoint is not None:
            gguf = embedded_weights(endpoint)
            opened = stack.enter_context(
                open_endpoint(
                    endpoint,
                    gguf=None if gguf is None else served(gguf),
                    weights=weights_identity(endpoint),
                    threads=runtime.threads,
                    pool=pool,
                )
            )
        yield LLMSession(
            log=root / REQUESTS,
            endpoint=opened,
            texts=texts,
            concurrency=runtime.concurrency,
            say=say,
        )


@contextlib.contextmanager
def _renamed_errors(rename: Callable[[str], str]) -> Iterator[None]:
    """Have the one line of a user's error name other settings."""
    try:
        yield
    except UserError as error:
        error.args = (rename(str(error)), *error.args[1:])
        raise
