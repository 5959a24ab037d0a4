"""Activations less those of the same visible text without the control."""

from __future__ import annotations

from pathlib import Path

import chain
import numpy as np
import pytest

from activation_store.target.capture import Capture
from core.errors import ConfigError, DataError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import Conversation
from decoder.sources.difference import DifferenceActivations
from decoder.sources.live import LiveActivations
from decoder.sources.target_run import capture
from trainers.config import TrainConfig
from trainers.training import train

CONFIG = TrainConfig.model_validate(
    {
        "decoder": {"normalisation": "difference"},
        "activations": "live",
        "views": ["system", "stimulus"],
        "max_steps": 1,
        "evaluations": 1,
        "rows_per_batch": 2,
    }
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chain.Chain:
    rows = chain.rows_of(("control", "system", "stimulus"), {"train": 3, "validation": 2})
    return chain.make(tmp_path_factory.mktemp("chain"), rows)


def table(made: chain.Chain) -> list[Conversation]:
    return read_conversations(made.conversations / CONVERSATIONS_FILE)


def test_visible_tokens_are_less_those_of_the_text_alone(made: chain.Chain) -> None:
    rows = table(made)
    source = DifferenceActivations(made.model, rows, chain.CAPTURE)
    plain, decoder = LiveActivations(made.model, rows, chain.CAPTURE), chain.decoder(made)
    for one in (source, plain):
        one.attach_decoder(decoder)
    for row in rows:
        if row.view == "control":
            with pytest.raises(DataError, match="cannot be read without the control"):
                source.read_layers(row.example_id, (chain.LAYER,))
            continue
        (found,) = source.read_layers(row.example_id, (chain.LAYER,))
        (own,) = plain.read_layers(row.example_id, (chain.LAYER,))
        withheld = plain.place(row.example_id).withheld
        alone = [m for m in row.messages if m.segment != "control"]
        ids = decoder.tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in alone],
            add_generation_prompt=True,
            return_dict=False,
        )
        run = Capture(decoder.net.get_base_model(), (chain.LAYER,))
        with decoder.without_adapter():
            values = run([np.array(ids, np.int32)])[chain.LAYER][0].numpy()
        size = len(own) - withheld
        assert not found[:withheld].any()
        np.testing.assert_allclose(found[withheld:], own[withheld:] - values[-size:], atol=1e-4)
        assert found[withheld:].any()


def test_it_is_trained_on_the_fly_and_not_from_a_store(made: chain.Chain, tmp_path: Path) -> None:
    flying = made.places(tmp_path / "live", store=None, capture=chain.CAPTURE)
    assert train(*flying, config=CONFIG, runtime=chain.RUNTIME).steps == 1
    with pytest.raises(ConfigError, match=r"Set train\.activations to `live`"):
        train(*made.places(tmp_path / "stored"), config=CONFIG, runtime=chain.RUNTIME)


@pytest.mark.parametrize("change", [{"activations": "store"}, {"views": ["control", "system"]}])
def test_it_needs_activations_on_the_fly_and_hidden_controls(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="needs activations `live`, masking, and views"):
        TrainConfig.model_validate({**CONFIG.model_dump(), **change})


def test_such_a_decoder_cannot_be_asked(made: chain.Chain) -> None:
    decoder = chain.decoder(made, normalisation="difference")
    with pytest.raises(ConfigError, match="normalisation `difference`"):
        capture(decoder, [table(made)[0].messages], (chain.LAYER,))
