"""The clock of chat templates: a fixed date, whatever format they ask for."""

from __future__ import annotations

from datetime import datetime

import jinja2
import pytest
import tiny
from jinja2 import nodes

from activation_store.tokens import template


@pytest.mark.parametrize(
    "asked", ["%d %b %Y", "%Y-%m-%d", "%-d %B", "%A", "%c", "%_d|%^a|%s|plain", ""]
)
def test_a_template_that_asks_the_clock_is_told_a_fixed_date(asked: str) -> None:
    tokenizer = tiny.tokenizer("{{ '<' + strftime_now('" + asked + "') + '>' }}")
    said = template.render(tokenizer, [{"role": "user", "content": "Hi"}], generation=False)
    assert said == f"<{datetime(2025, 1, 1).strftime(asked)}>"


def test_the_clock_is_no_long_chain_of_filters() -> None:
    """A chain takes jinja time that grows with the square of its length: seconds in a process."""
    (macro,) = jinja2.Environment().parse(template._clock_macro()).find_all(nodes.Macro)
    assert len(list(macro.find_all(nodes.Filter))) == 1
