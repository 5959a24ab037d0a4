"""Evaluation of steering, end to end on a tiny target."""

from __future__ import annotations

import json
from pathlib import Path

import decoders
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from activation_store.target.generation import Sampling
from core.errors import ConfigError, DataError
from core.records.estimate import Estimate
from core.records.steering_control import (
    SteeringControl,
    WantedAnswer,
    find_control,
    packaged_controls,
)
from core.runtime import Runtime
from decoder.model import Decoder
from decoder.steering.replies import Steering, write_replies
from decoder.steering.shifts import capture_prompts
from decoder.steering.vectors import SteeringVector
from evaluators.control.config import ControlSection
from evaluators.control.crows_pairs import measure_bias, read_pairs, score_sentences
from evaluators.control.evaluation import choose_strength, evaluate_control
from evaluators.control.methods import MethodMaker
from evaluators.control.metrics import Readability, StrengthPoint
from evaluators.control.prompts import draw_prompts
from evaluators.control.readability import measure_readability
from evaluators.control.text_measures import distinct_n, holds_fact, repetition
from evaluators.stats.estimates import Resampling
from generators.llm.prompt_files import PromptFiles
from generators.rules.obedience import adherence, obeys
from generators.rules.refusals import find_refusal
from generators.rules.tone import formality_of, sentiment_of

PIRATE = SteeringControl(
    control="pirate",
    description="The assistant is a pirate.",
    questions=(
        WantedAnswer(question="Who is it?", answer="A pirate.", instead=("A cook.", "A cat.")),
    ),
    check={"words": ["arr", "sea"]},
)
SMALL = ControlSection.model_validate(
    {
        "strengths": [1.0, 2.0],
        "train_prompts": 4,
        "validation_prompts": 2,
        "test_prompts": 8,
        "max_tokens": 4,
        "activations": {"steps": 1},
        "weights": {"steps": 2, "evaluate_every": 1, "reply_tokens": 2, "lora": {"rank": 2}},
        "bootstrap": 200,
    }
)
PAIRS = "sent_more,sent_less,bias_type\n" + "".join(
    f"The {i} cat sat,The {i} dog sat,animal\n" for i in range(10)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder")
    decoders.make().save(out)
    return out


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("control")
    (base / "pairs.csv").write_text(PAIRS)
    config = SMALL.model_copy(update={"crows_pairs": str(base / "pairs.csv")})
    run(folder, base, config)
    return base


def run(folder: Path, base: Path, config: ControlSection) -> None:
    for name in ("out", "work"):
        (base / name).mkdir(exist_ok=True)
    evaluate_control(
        folder,
        decoders.model(),
        base / "out",
        base / "work",
        controls=[PIRATE],
        config=config,
        runtime=Runtime(device="cpu"),
    )


def test_every_method_is_judged_beside_the_unsteered_target(made: Path) -> None:
    found = json.loads((made / "out/control.json").read_text())["controls"]["pirate"]
    assert set(found["methods"]) == set(SMALL.methods)
    for name, method in found["methods"].items():
        assert method["adherence"]["n"] == 8
        assert method["effects"]["own_perplexity"] > 0
        assert len(method["curve"]) == 2
        assert (method["wording"] is None) == (name != "prompting")
        assert (method["bias"] is None) == (name == "activations")
    assert found["readability"]["chance"] == pytest.approx(1 / 3)
    assert found["unsteered"]["own_perplexity"] == 1
    assert found["unsteered"]["ordinary_perplexity"] == pytest.approx(1)


def test_vectors_adapters_and_replies_are_written(made: Path) -> None:
    out = made / "out"
    names = {p.relative_to(out / "pirate").as_posix() for p in (out / "pirate").rglob("*")}
    assert {
        "vector.safetensors",
        "weights/adapter_config.json",
        "sft/adapter_model.safetensors",
    } <= names
    rows = pq.read_table(out / "replies.parquet").to_pylist()
    assert {row["method"] for row in rows} == {"none", *SMALL.methods}


def test_every_number_has_a_row(made: Path) -> None:
    rows = {r["metric"]: r for r in pq.read_table(made / "out/results.parquet").to_pylist()}
    found = json.loads((made / "out/control.json").read_text())["controls"]["pirate"]
    for method, own in found["methods"].items():
        row = rows[f"pirate.{method}.adherence"]
        assert (row["estimate"], row["n"]) == (own["adherence"]["estimate"], 8)
        assert rows[f"pirate.{method}.strength"]["estimate"] == own["strength"]
    assert rows["pirate.none.own_perplexity"]["estimate"] == 1
    for method in ("none", *found["methods"]):
        assert rows[f"pirate.{method}.toxicity"]["n"] == 8
    assert "pirate.sft.bias.stereotype" in rows
    assert rows["pirate.none.bias.stereotype.animal"]["n"] == 10


def test_another_sampled_layer_is_asked_and_steered(tmp_path: Path) -> None:
    folder = tmp_path / "decoder"
    folder.mkdir()
    decoders.make(read_layers=[1, 2], combine="sampled").save(folder)
    config = SMALL.model_copy(update={"methods": ("vector",), "strengths": (1.0,)})
    run(folder, tmp_path, config.model_copy(update={"read_layer": 2}))
    vector = SteeringVector.load(tmp_path / "out/pirate/vector.safetensors")
    assert list(vector.layers) == [2]
    with pytest.raises(ConfigError, match=r"layer 3: the decoder reads \[1, 2\]"):
        run(folder, tmp_path, config.model_copy(update={"read_layer": 3}))


def test_a_difference_is_that_of_replies_under_the_control_and_without(folder: Path) -> None:
    decoder = Decoder.load(folder, decoders.model(), "float32", Runtime(device="cpu"))
    sets = draw_prompts(SMALL)
    maker = MethodMaker(decoder, PIRATE, sets, SMALL)
    vector = maker.make("difference").vector
    assert vector is not None
    sampling = Sampling(max_tokens=SMALL.max_tokens)
    means = []
    for make in (maker.told_prompt, maker.plain_prompt):
        own = []
        for text in sets.train:
            (reply,) = write_replies(decoder, [make(text)], Steering(), sampling)
            plain = maker.plain_prompt(text)
            ((found,),) = capture_prompts(
                decoder, [plain.followed_by(reply.ids)], [decoders.READ_LAYER]
            )
            own.append(found[len(plain.ids) :].mean(0))
        means.append(torch.stack(own).mean(0))
    torch.testing.assert_close(
        vector.layers[decoders.READ_LAYER], means[0] - means[1], rtol=1e-4, atol=1e-4
    )


def test_of_several_replies_under_a_control_the_most_adherent_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder.load(folder, decoders.model(), "float32", Runtime(device="cpu"))
    scored: list[str] = []

    def prefer_the_last(reply: str, check: dict[str, object]) -> float:
        scored.append(reply)
        return len(scored)

    monkeypatch.setattr("evaluators.control.methods.adherence", prefer_the_last)

    def difference(attempts: int, check: dict[str, object] | None) -> torch.Tensor:
        config = SMALL.model_copy(update={"reply_attempts": attempts})
        control = PIRATE.model_copy(update={"check": check})
        vector = (
            MethodMaker(decoder, control, draw_prompts(SMALL), config).make("difference").vector
        )
        assert vector is not None
        return next(iter(vector.layers.values()))

    greedy = difference(1, PIRATE.check)
    assert torch.equal(difference(3, None), greedy)
    assert not scored  # without a check nothing ranks attempts
    assert not torch.equal(difference(3, PIRATE.check), greedy)
    assert len(scored) == 3 * SMALL.train_prompts


def test_prompting_is_tried_in_as_many_wordings_as_others_have_strengths(folder: Path) -> None:
    decoder = decoders.make()
    config = SMALL.model_copy(update={"strengths": (0.5, 1.0, 2.0, 4.0)})
    method = MethodMaker(decoder, PIRATE, draw_prompts(config), config).make("prompting")
    texts = [decoder.tokenizer.decode(method.prompt_maker(s)("Hi").ids) for s in method.strengths]
    assert len(set(texts)) == len(config.strengths)
    assert all(PIRATE.description in text for text in texts)


def test_contradictory_questions_are_named_before_the_long_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loss that falls along one direction for one question, and rises along it for another."""
    decoder = decoders.make()
    control = PIRATE.model_copy(
        update={
            "questions": (
                WantedAnswer(question="Who?", answer="Yes."),
                WantedAnswer(question="Why?", answer="No."),
                WantedAnswer(question="When?", answer="Yes."),
            )
        }
    )
    (first, *_) = decoder.tokenizer("Yes.", add_special_tokens=False)["input_ids"]

    def planted(net: object, injection: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        sign = 1.0 if int(batch["targets"][0]) == first else -1.0
        return sign * batch["vectors"].sum().expand(len(batch["row_of"]))

    monkeypatch.setattr("decoder.steering.gradient.compute_answer_losses", planted)
    found = measure_readability(decoder, control, ["Hi"] * 8, Resampling(samples=200))
    assert [pair.split(" (")[0] for pair in found.opposed] == [
        "'Who?' against 'Why?'",
        "'Why?' against 'When?'",
    ]
    assert found.agreement is not None
    assert found.agreement.estimate == pytest.approx(-1 / 3)


def test_an_interrupted_run_goes_on_from_the_methods_that_are_done(
    made: Path, folder: Path, tmp_path: Path
) -> None:
    whole = json.loads((made / "out/control.json").read_text())
    (tmp_path / "work").mkdir()
    for path in sorted((made / "work").glob("*.json"))[:4]:
        (tmp_path / "work" / path.name).write_bytes(path.read_bytes())
    config = SMALL.model_copy(update={"crows_pairs": str(made / "pairs.csv")})
    run(folder, tmp_path, config)
    again = json.loads((tmp_path / "out/control.json").read_text())
    assert again == whole


def test_a_control_that_cannot_be_read_is_named_before_the_long_work(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluators.control.evaluation.MethodMaker.make", stop)
    margin = Estimate(estimate=0.1, low=-0.1, high=0.3, n=10)
    unread = Readability(margin=margin, accuracy=None, chance=None, readable=False)
    monkeypatch.setattr(
        "evaluators.control.evaluation.measure_readability", lambda *args, **kwargs: unread
    )
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, SMALL)
    assert "control pirate: the decoder does not read it" in caplog.text


def test_prompts_are_drawn_into_sets_that_share_none() -> None:
    sets = draw_prompts(SMALL)
    assert len({*sets.train, *sets.validation, *sets.test}) == 14
    with pytest.raises(DataError, match="510 together, but the packaged file has"):
        draw_prompts(SMALL.model_copy(update={"train_prompts": 500}))


def test_no_packaged_prompt_is_a_stimulus_of_training() -> None:
    texts = PromptFiles()
    prompts = texts.seed_list("steering_prompts")
    assert len(set(prompts)) == len(prompts) >= 160
    assert not set(prompts) & set(texts.seed_list("messages"))


def test_prompts_come_from_a_file_each_once(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    said = [f"Tell me about {i}." for i in range(14)]
    path.write_text("\ufeff" + "\n\n".join([*said, said[0], "  "]))
    config = SMALL.model_copy(update={"prompts": str(path)})
    sets = draw_prompts(config)
    assert sorted([*sets.train, *sets.validation, *sets.test]) == sorted(said)
    with pytest.raises(DataError, match=r"15 together, but .*prompts.txt has 14"):
        draw_prompts(config.model_copy(update={"test_prompts": 9}))
    with pytest.raises(ConfigError, match=r"control.prompts: .*none.txt cannot be read"):
        draw_prompts(config.model_copy(update={"prompts": str(tmp_path / "none.txt")}))


def point(
    strength: float, adherence: float | None, *, likelihood: float = 0.0, own: float = 1.0
) -> StrengthPoint:
    return StrengthPoint(
        strength=strength,
        adherence=adherence,
        likelihood=likelihood,
        distinct=1.0,
        own_perplexity=own,
        ordinary_perplexity=1.0,
        harmless=own <= 1.3,
    )


def test_the_strongest_harmless_strength_is_chosen() -> None:
    curve = [point(0.5, 1.0), point(1, 3.0), point(2, 9.0, own=2.0)]
    assert choose_strength(curve).strength == 1
    broken = [point(1, 1.0, own=5.0), point(2, 9.0, own=3.0)]
    assert choose_strength(broken).strength == 2


def test_of_equal_adherences_the_likelier_replies_are_chosen() -> None:
    for equal in (0.0, None):
        curve = [point(n, equal, likelihood=gain) for n, gain in ((1, 0.1), (2, 0.3), (4, 0.2))]
        assert choose_strength(curve).strength == 2


def test_bias_of_sentences_is_the_difference_of_their_likelihoods(tmp_path: Path) -> None:
    decoder = decoders.make()
    (tmp_path / "pairs.csv").write_text(PAIRS)
    pairs = read_pairs(tmp_path / "pairs.csv")
    found = measure_bias(decoder, pairs, Steering(), draw=Resampling(samples=200))
    more: list[float] = []
    less: list[float] = []
    for pair in pairs:
        for text, out in ((pair.more, more), (pair.less, less)):
            ids = [decoder.tokenizer.bos_token_id or decoder.tokenizer.eos_token_id]
            ids += decoder.tokenizer(text, add_special_tokens=False)["input_ids"]
            with decoder.without_adapter(), torch.no_grad():
                logits = decoder.net.get_base_model()(torch.tensor([ids])).logits[0]
            chances = logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])
            out.append(float(chances.sum()))
    assert found.difference.estimate == pytest.approx(
        np.mean(np.abs(np.subtract(more, less))), rel=1e-4
    )
    assert found.stereotype.estimate == pytest.approx(100 * np.mean(np.greater(more, less)))
    assert list(found.by_type) == ["animal"]
    scores = score_sentences(decoder, [p.more for p in pairs], Steering())
    assert scores.tolist() == pytest.approx(more, rel=1e-4)


def test_a_file_that_is_not_crows_pairs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column sent_more"):
        read_pairs(path)


def test_packaged_controls_can_be_read() -> None:
    assert {"cheerful", "formal", "ocean"} <= set(packaged_controls())
    for name in packaged_controls():
        control = find_control(name)
        assert control.control == name
        assert control.check is not None
        adherence("Some text.", control.check)
    with pytest.raises(ConfigError, match="not found, expected a file or one of"):
        find_control("nobody")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("control: x\n", "description"),
        ("- a\n", "expected control"),
        ("control: x\ndescription: y\nquestions: []\n", "questions"),
        ("control: x\ndescription: y\nquestionz: []\n", "questionz"),
    ],
)
def test_a_wrong_control_is_refused_by_field(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=wrong):
        find_control(str(path))


def test_measures_of_texts() -> None:
    assert distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert repetition("a b c a b c") == pytest.approx(1 / 4)
    assert find_refusal("I'm sorry, but I can't help with that.")
    assert not find_refusal("Sure, take two eggs.")
    assert holds_fact("It is Paris.", ("paris",))
    assert not holds_fact("It is Parisian.", ("paris",))


def test_adherence_has_degrees() -> None:
    assert sentiment_of("What a wonderful, happy day!") > 0.5
    assert formality_of("Dear Sir, kindly advise.") > 0 > formality_of("hey dude, that's cool!")
    assert adherence("the sea and the sea", {"words": ["sea"]}) == pytest.approx(40)
    assert adherence("AYE", {"form": "capitals"}) == 100
    assert obeys("I am so sad and hurt.", {"sentiment": "negative"})
    with pytest.raises(ValueError, match="expected words"):
        obeys("x", {"mood": "odd"})
