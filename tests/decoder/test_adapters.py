"""Switching of adapters: what comes later takes part, and what goes leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from decoder.adapters import use_adapter

IDS = torch.arange(1, 6)[None]


def settings(module: str) -> LoraConfig:
    return LoraConfig(r=2, target_modules=[module], init_lora_weights=False)


def scores(net: Any, name: str | None) -> torch.Tensor:
    with torch.no_grad(), use_adapter(net, name):
        found: torch.Tensor = net(IDS).logits
    return found


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    return get_peft_model(tiny.model(), settings("q_proj"), adapter_name="first")


def test_an_adapter_of_other_layers_that_came_later_is_switched_too(net: Any) -> None:
    plain = scores(net, None)
    first = scores(net, "first")
    assert not torch.equal(plain, first)
    net.add_adapter("later", settings("down_proj"))
    assert not torch.equal(scores(net, "later"), plain)
    assert torch.equal(scores(net, None), plain)
    assert torch.equal(scores(net, "first"), first)


def test_an_adapter_is_made_anew_under_its_name_with_other_layers(net: Any) -> None:
    plain = scores(net, None)
    net.add_adapter("own", settings("v_proj"))
    before = scores(net, "own")
    net.delete_adapter("own")
    net.add_adapter("own", settings("down_proj"))
    assert not torch.equal(scores(net, "own"), before)
    assert torch.equal(scores(net, None), plain)


@pytest.mark.parametrize("name", [None, "first", "other"])
def test_no_weight_begins_or_ends_to_train(net: Any, name: str | None) -> None:
    net.add_adapter("other", settings("v_proj"))
    before = {own: weight.requires_grad for own, weight in net.named_parameters()}
    with use_adapter(net, name):
        assert {own: weight.requires_grad for own, weight in net.named_parameters()} == before
    assert {own: weight.requires_grad for own, weight in net.named_parameters()} == before
