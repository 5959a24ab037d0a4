"""Keys are golden, strict, and cover exactly what decides an output."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from activation_store.layout.config import CaptureConfig, DumpSection
from pipelines.artifacts.cache_key import StepIdentity, differences, plain
from trainers.config import TrainConfig


def identity(**changes: Any) -> StepIdentity:
    return StepIdentity(
        **{
            "kind": "dump",
            "version": 1,
            "config": {"layers": [14], "dtype": "bfloat16"},
            "inputs": {"conversations": {"key": "a" * 64, "digest": "b" * 64}},
            "external": {"weights": "c" * 64},
            **changes,
        }
    )


def test_hashed_bytes_are_golden() -> None:
    assert identity().canonical() == (
        b'{"config":{"dtype":"bfloat16","layers":[14]},'
        b'"external":{"weights":"' + b"c" * 64 + b'"},'
        b'"inputs":{"conversations":{"digest":"' + b"b" * 64 + b'","key":"' + b"a" * 64 + b'"}},'
        b'"kind":"dump","schema":1,"version":1}'
    )


def test_key_is_golden() -> None:
    assert identity().key == "875a0df213babd15023785b31df21102e02b23341903b11e9099ba4b7300e9d4"


def test_key_is_the_digest_of_the_hashed_bytes() -> None:
    assert identity().key == hashlib.sha256(identity().canonical()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "train"},
        {"version": 2},
        {"config": {"layers": [15], "dtype": "bfloat16"}},
        {"config": {"layers": [14.0], "dtype": "bfloat16"}},
        {"config": {"layers": [14]}},
        {"inputs": {"conversations": {"key": "d" * 64, "digest": "b" * 64}}},
        {"inputs": {"conversations": {"key": "a" * 64, "digest": "d" * 64}}},
        {"inputs": {"rows": {"key": "a" * 64, "digest": "b" * 64}}},
        {"external": {"weights": "d" * 64}},
        {"external": {}},
    ],
)
def test_every_part_changes_the_key(change: dict[str, Any]) -> None:
    assert identity(**change).key != identity().key


def test_order_of_fields_does_not_change_the_key() -> None:
    assert identity(config={"dtype": "bfloat16", "layers": [14]}).key == identity().key


def test_what_has_no_stable_identity_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"\$\.config\.layers: a set has no stable identity"):
        identity(config={"layers": {14}}).key  # noqa: B018


def test_plain_holds_every_default() -> None:
    assert plain(CaptureConfig())["max_tokens"] == 1024


def test_plain_of_a_section_leaves_places_out() -> None:
    assert plain(DumpSection(model="/somewhere"), CaptureConfig) == plain(CaptureConfig())


def test_a_default_and_the_same_value_from_a_file_are_one() -> None:
    from_file = TrainConfig.model_validate_json('{"lora": {"alpha": 32}, "epochs": 1}')
    assert identity(config=plain(from_file)).key == identity(config=plain(TrainConfig())).key


def test_differences_name_each_field_on_both_sides() -> None:
    found = differences(identity().payload(), identity(config={"layers": [15]}).payload())
    assert [str(d) for d in found] == [
        'config.dtype: "bfloat16" → (absent)',
        "config.layers: [14] → [15]",
    ]


def test_differences_shorten_digests() -> None:
    found = differences(identity().payload(), identity(external={"weights": "d" * 64}).payload())
    assert [str(d) for d in found] == ["external.weights: cccccccccccc… → dddddddddddd…"]
