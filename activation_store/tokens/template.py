"""A conversation as the text that the target's chat template writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from activation_store.tokens.config import TemplateConfig
from core.errors import DataError

TEMPLATE_SETTINGS = "latentqa_template"
"""Attribute of a tokenizer that holds the `TemplateConfig` of the model that it is of."""
# some templates write today's date; a fixed one keeps a store's tokens the same on every day
_DATE = datetime(2025, 1, 1)


def render(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    *,
    generation: bool,
    tools: list[Any] | None = None,
) -> str:
    """Return the chat template's text for `messages`, with `tools` on offer.

    The date is a fixed one, whatever the template asks the clock for, unless the model's settings
    give `date_string`.

    Raises:
        DataError: the template refuses them (Gemma: system role; Mistral: two users in a row).
    """
    arguments: dict[str, Any] = {
        "date_string": _DATE.strftime("%d %b %Y"),
        **settings_of(tokenizer).template_args,
        "strftime_now": _format_date,  # in place of transformers' own
    }
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                tokenize=False,
                add_generation_prompt=generation,
                **arguments,
            )
        )
    except Exception as error:  # jinja raises TemplateError, templates raise whatever they like
        raise DataError(
            f"the chat template refuses roles {[m['role'] for m in messages]} ({error})."
        ) from error


def _format_date(format: str) -> str:
    return _DATE.strftime(format.replace("%#", "%-"))  # %#d on Windows is %-d elsewhere


def settings_of(tokenizer: Any) -> TemplateConfig:
    """Return the template settings of the model that `tokenizer` was loaded for."""
    found = getattr(tokenizer, TEMPLATE_SETTINGS, None)
    return found if isinstance(found, TemplateConfig) else TemplateConfig()
