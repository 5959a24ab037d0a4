"""A conversation as the text that the target's chat template writes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from activation_store.tokens.config import TemplateConfig
from core.errors import DataError

TEMPLATE_SETTINGS = "latentqa_template"
"""Attribute of a tokenizer that holds the `TemplateConfig` of the model that it is of."""
# some templates write today's date; a fixed one keeps a store's tokens the same on every day
_DATE = datetime(2025, 1, 1)
_CLOCK = "strftime_now"


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
    }
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                tokenize=False,
                add_generation_prompt=generation,
                chat_template=_with_fixed_clock(tokenizer.get_chat_template(tools=tools)),
                **arguments,
            )
        )
    except Exception as error:  # jinja raises TemplateError, templates raise whatever they like
        raise DataError(
            f"the chat template refuses roles {[m['role'] for m in messages]} ({error})."
        ) from error


def _with_fixed_clock(template: str) -> str:
    """Return the template with its own `strftime_now`, which formats a fixed date.

    A function cannot be handed to a template: transformers makes text of what is no plain data.
    """
    if _CLOCK not in template:
        return template
    # the line break ends the macro's line, and is not part of what the template writes
    return f"{_clock_macro()}\n{template}"


def _format_date(flag: str, code: str) -> str:
    return _DATE.strftime(f"%{'-' if flag == '#' else flag}{code}")


@functools.cache
def _clock_macro() -> str:
    formatted = [
        (f"%{flag}{code}", _format_date(flag, code))
        for flag in ("-", "#", "_", "^", "")  # %-d: without a leading zero; %#d: so on Windows
        for code in "aAbBcCdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ"
    ]
    # a loop, not a chain of filters: jinja takes seconds to compile a chain of this length
    return (
        f"{{% macro {_CLOCK}(format) %}}{{% set now = namespace(text=format) %}}"
        f"{{% for code, value in {formatted} %}}"
        "{% set now.text = now.text | replace(code, value) %}{% endfor %}"
        "{{ now.text }}{% endmacro %}"
    )


def settings_of(tokenizer: Any) -> TemplateConfig:
    """Return the template settings of the model that `tokenizer` was loaded for."""
    found = getattr(tokenizer, TEMPLATE_SETTINGS, None)
    return found if isinstance(found, TemplateConfig) else TemplateConfig()
