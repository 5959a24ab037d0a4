"""`latentqa steer`: a target's reply as it is, and steered through its decoder."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.errors import ConfigError, DataError
from latentqa.terminal.option_groups import DecoderOptions, takes_groups
from latentqa.terminal.options import MOST_SEED, MOST_TOKENS, JsonOption, check_finite
from latentqa.terminal.printing import print_json, say

if TYPE_CHECKING:
    from activation_store.target.generation import Sampling
    from pipelines.asking.steering import SteeredTarget

_SIDES = ("unsteered", "steered")


@takes_groups
def steer(
    *,
    prompt: Annotated[
        list[str],
        typer.Option("--prompt", metavar="TEXT", help="User message; repeatable."),
    ],
    control: Annotated[
        list[str],
        typer.Option(
            "--control",
            metavar="CONTROL",
            help="File or packaged name of a control; NAME=WEIGHT weights it, a negative "
            "weight steers away from it; repeatable.",
        ),
    ] = [],  # noqa: B006 - typer's default, never changed
    from_prompt: Annotated[
        str | None,
        typer.Option(
            "--from-prompt",
            metavar="TEXT",
            help="Take the control from this prompt: the decoder's answers about it are "
            "the wanted answers.",
        ),
    ] = None,
    question: Annotated[
        list[str],
        typer.Option(
            "--question",
            metavar="TEXT",
            help="Question that the decoder is asked about --from-prompt; repeatable.",
        ),
    ] = [],  # noqa: B006
    save_control: Annotated[
        Path | None,
        typer.Option(
            "--save-control",
            metavar="PATH",
            help="Write the control taken from --from-prompt to this file.",
        ),
    ] = None,
    using: Annotated[
        Path | None,
        typer.Option(
            "--using",
            metavar="PATH",
            help="Saved steering vector or adapter to use instead of a control.",
        ),
    ] = None,
    by: Annotated[
        Literal["activations", "vector", "weights"] | None,
        typer.Option("--by", help="Steering method.", show_default="activations"),
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", help="Multiple of the method's own shift.")
    ] = 1.0,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field of control, such as control.activations.steps=8 (step size, steps, "
            "norm limit, layer, tokens: docs/config.md); repeatable.",
        ),
    ] = [],  # noqa: B006
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="System prompt before every prompt."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, max=MOST_TOKENS, help="Longest reply, in tokens.")
    ] = 60,
    temperature: Annotated[
        float,
        typer.Option("--temperature", min=0.0, max=100, help="Sampling temperature; 0 is greedy."),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of sampling.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="PATH", help="Write the vector (a file) or adapter (a folder)."
        ),
    ] = None,
    decoder: DecoderOptions,
    as_json: JsonOption = False,
) -> None:
    """Steer a decoder's target towards a control, and print steered and unsteered replies.

    A control lists questions with wanted answers. The gradient of the decoder's loss on these
    answers moves the target's activations.

    --by activations: shift the activations at every prompt, with the decoder.

    --by vector: shift all prompts by one vector made from ordinary prompts; --out saves it, --using
    applies it.

    --by weights: train a LoRA adapter of the target; --out saves it, --using applies it.
    """
    if not all(text.strip() for text in prompt):
        raise DataError("steer: a prompt is empty; expected some text.")
    combined = by is not None or out is not None or bool(settings)
    _check_sources(bool(control), from_prompt, using, combined=combined)
    check_finite("steer", temperature=temperature)
    if not 0 < strength < math.inf:
        raise ConfigError(f"steer: --strength is {strength:g}, expected a number above 0.")
    if question and from_prompt is None:
        raise ConfigError(
            "steer: got --question without --from-prompt, expected both: the "
            "question is about that prompt."
        )
    if save_control is not None and from_prompt is None:
        raise ConfigError(
            "steer: got --save-control without --from-prompt, expected both: "
            "it saves the control taken from that prompt."
        )
    for option, path in (("--out", out), ("--save-control", save_control)):
        if path is not None and path.exists():
            raise ConfigError(f"steer: {option} {path} already exists; name a new path.")
    weighed = [_weighed(own) for own in control]
    from activation_store.target.generation import Sampling
    from core.records.steering_control import find_control, write_control
    from pipelines.asking.steering import (
        QUESTIONS,
        infer_control,
        steer_with_file,
        steering_settings,
    )
    from pipelines.asking.steering import steer as steer_target

    config = steering_settings(settings)
    controls = [find_control(name) for name, _ in weighed]
    reader = decoder.load()
    if from_prompt is not None:
        controls = [infer_control(reader, from_prompt, questions=tuple(question) or QUESTIONS)]
        if save_control is not None:
            write_control(save_control, controls[0])
    if using is not None:
        context = steer_with_file(reader, using, strength=strength)
    else:
        context = steer_target(
            reader,
            controls,
            weights=[weight for _, weight in weighed],
            by=by or "activations",
            strength=strength,
            config=config,
            save_to=out,
        )
    with context as target:
        for note in target.notes:
            say(f"steer: {note}.", err=True)
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)
        found = _reply(target, prompt, system, sampling, stream=not as_json)
    if as_json:
        wanted = [control.model_dump(mode="json") for control in controls]
        print_json({"decoder": reader.name, "controls": wanted, "replies": found})


def _check_sources(
    control: bool, from_prompt: str | None, using: Path | None, *, combined: bool
) -> None:
    """Refuse options that do not go together.

    Args:
        control: whether --control is given.
        from_prompt: as given.
        using: as given.
        combined: whether --by, --out or --set is given.
    """
    given = [control, from_prompt is not None, using is not None]
    if sum(given) != 1:
        raise ConfigError(
            f"steer: got {sum(given)} of --control, --from-prompt, --using; expected one."
        )
    if using is not None and combined:
        raise ConfigError(
            "steer: got --using together with --by, --out or --set, expected --using alone: it "
            "applies a saved vector or adapter."
        )


def _weighed(control: str) -> tuple[str, float]:
    name, equals, weight = control.rpartition("=")
    if not equals or Path(control).exists():
        return control, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number == 0:
        raise ConfigError(
            f"steer: --control {control!r} has weight {weight!r}, expected a number other than 0."
        )
    return name, number


def _reply(
    target: SteeredTarget,
    prompts: list[str],
    system: str | None,
    sampling: Sampling,
    *,
    stream: bool,
) -> list[dict[str, str]]:
    """Write both replies to each prompt, and print them as they come where `stream` is set."""
    found = []
    for text in prompts:
        replies = {"prompt": text}
        for side in _SIDES:
            write = target.reply if side == "steered" else target.unsteered
            if stream:
                say(f"{side}: ", end=False)
            reply = write(text, system=system, sampling=sampling, tell=_stream if stream else None)
            replies[side] = reply.text
            if stream:
                say()
        found.append(replies)
    return found


def _stream(piece: str) -> None:
    say(piece, end=False)
    sys.stdout.flush()
