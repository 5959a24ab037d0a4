"""Steering by weights: a LoRA adapter on the target, trained so that the decoder reads a control.

The target runs on ordinary prompts with the adapter, the decoder is asked the control's questions
about its activations, and the loss of the answers wanted trains the adapter. Only the blocks up to
the read layer can change what is read, so only they carry it. The result is an ordinary peft
adapter of the target. (arXiv 2412.08686, section 5; per-layer losses for a decoder of several
layers.)

Shapes: B prompts, T tokens.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from activation_store.model_files.files import public_name
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.capture import Capture
from activation_store.target.generation import Sampling, generate_ids
from activation_store.target.load import blocks as blocks_of
from activation_store.tokens.tokens import ends_of_reply
from core.files import write_json
from core.progress import Progress, silent
from decoder.adapters import multiply_in_base_format, use_adapter
from decoder.config import LoraSettings
from decoder.model import Decoder
from decoder.reading import Reading
from decoder.steering.gradient import answer_loss
from decoder.steering.objective import SteeringObjective
from decoder.steering.prompts import SteeringPrompt
from trainers.steering_config import WeightSteeringConfig

STEER = "steer"
"""Name of the steering adapter on the decoder's network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightSteering:
    """What training an adapter came to.

    Attributes:
        losses: of each step, mean answer loss in nats per token.
        validation: (step, mean answer loss of held-out prompts), the first before training.
        best_step: the step whose weights are kept.
        gradient_norm: of the first step, before clipping; 0 is a dead gradient.
    """

    losses: list[float]
    validation: list[tuple[int, float]]
    best_step: int
    gradient_norm: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "losses": self.losses,
            "validation": [list(pair) for pair in self.validation],
            "best_step": self.best_step,
            "gradient_norm": self.gradient_norm,
        }


def add_steering_adapter(
    decoder: Decoder, lora: LoraSettings, *, blocks: int, seed: int, name: str = STEER
) -> None:
    """Put a new adapter on the first `blocks` blocks of the decoder's network.

    It changes nothing yet; one of that name that was there is dropped. The process's generator of
    random numbers is left as it was.
    """
    from peft import LoraConfig

    remove_steering_adapter(decoder, name)
    targets = lora.targets
    if isinstance(targets, str):  # peft takes layers for named modules alone
        targets = linear_names(decoder)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        layers_to_transform=list(range(blocks)),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), use_adapter(decoder.net, decoder.adapter):
        torch.manual_seed(seed)
        decoder.net.add_adapter(name, config)
    multiply_in_base_format(decoder.net)
    decoder.net.requires_grad_(False)


def linear_names(decoder: Decoder) -> tuple[str, ...]:
    """Name the linear layers of the decoder's blocks, adapted or not, without their paths."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = set()
    for name, module in blocks_of(decoder.net.get_base_model()).named_modules():
        inside = ".lora_" in name or name.endswith(".base_layer")
        if isinstance(module, torch.nn.Linear | BaseTunerLayer) and not inside:
            found.add(name.rsplit(".", 1)[-1])
    return tuple(sorted(found))


def remove_steering_adapter(decoder: Decoder, name: str = STEER) -> None:
    """Remove the steering adapter from the decoder's network, if there is one."""
    if name in decoder.net.peft_config:
        decoder.net.delete_adapter(name)
        decoder.net.set_adapter(decoder.adapter)
        decoder.net.requires_grad_(False)


def steering_weights(decoder: Decoder, name: str = STEER) -> list[torch.nn.Parameter]:
    """Return the weights of the steering adapter, in their own order."""
    return [weight for path, weight in decoder.net.named_parameters() if f".{name}." in path]


@contextlib.contextmanager
def scaled_adapter(decoder: Decoder, name: str, strength: float) -> Iterator[None]:
    """Scale what an adapter adds to every layer by `strength` while the context is open."""
    scalings = (getattr(module, "scaling", None) for module in decoder.net.modules())
    own = [scaling for scaling in scalings if isinstance(scaling, dict) and name in scaling]
    before = [scaling[name] for scaling in own]
    try:
        for scaling, value in zip(own, before, strict=True):
            scaling[name] = value * strength
        yield
    finally:
        for scaling, value in zip(own, before, strict=True):
            scaling[name] = value


def train_steering_adapter(
    decoder: Decoder,
    prompts: Sequence[SteeringPrompt],
    held_out: Sequence[SteeringPrompt],
    objective: SteeringObjective,
    config: WeightSteeringConfig,
    *,
    unrelated: Sequence[SteeringPrompt] = (),
    progress: Progress = silent,
) -> WeightSteering:
    """Train an adapter, which then stands on the decoder's network under the name `STEER`.

    Args:
        decoder: reads the target; none of its weights changes.
        prompts: what the target runs on.
        held_out: likewise; the weights with the lowest loss on them are kept.
        objective: the answers wanted.
        config: shape and optimisation.
        unrelated: prompts on whose replies the target is to stay as it was, for `kl_weight`.
        progress: told the steps that are done.
    """
    add_steering_adapter(decoder, config.lora, blocks=max(decoder.layers) + 1, seed=config.seed)
    training = SteeringRows(decoder, prompts, reply_tokens=config.reply_tokens)
    checking = SteeringRows(decoder, held_out, reply_tokens=config.reply_tokens)
    anchor = KLAnchor(decoder, unrelated) if config.kl_weight and unrelated else None

    def loss_of(chosen: Sequence[int], step: int) -> torch.Tensor:
        loss = training.loss(objective, chosen, layer_turn=step)
        return loss if anchor is None else loss + config.kl_weight * anchor.divergence(step)

    return _optimise(
        steering_weights(decoder),
        loss_of,
        lambda: checking.mean_loss(objective),
        config,
        rows=len(prompts),
        progress=progress,
    )


def train_reply_adapter(
    decoder: Decoder,
    rows: Sequence[tuple[SteeringPrompt, Sequence[int]]],
    held_out: Sequence[tuple[SteeringPrompt, Sequence[int]]],
    config: WeightSteeringConfig,
    *,
    name: str,
    progress: Progress = silent,
) -> WeightSteering:
    """Train an adapter of the same shape by supervised fine-tuning on replies (a baseline).

    Args:
        decoder: on whose network it is to stand.
        rows: prompts, and the token ids of the replies that they are to get.
        held_out: likewise; the weights with the lowest loss on them are kept.
        config: shape and optimisation.
        name: of the adapter.
        progress: told the steps that are done.
    """
    blocks = max(decoder.layers) + 1
    add_steering_adapter(decoder, config.lora, blocks=blocks, seed=config.seed, name=name)

    def loss_of(chosen: Sequence[tuple[SteeringPrompt, Sequence[int]]]) -> torch.Tensor:
        losses = [_reply_loss(decoder, prompt, reply, name) for prompt, reply in chosen]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def check() -> float:
        return float(loss_of(held_out))

    return _optimise(
        steering_weights(decoder, name),
        lambda chosen, step: loss_of([rows[i] for i in chosen]),
        check,
        config,
        rows=len(rows),
        progress=progress,
    )


def _reply_loss(
    decoder: Decoder, prompt: SteeringPrompt, reply: Sequence[int], name: str
) -> torch.Tensor:
    """Compute the mean loss of a reply's tokens, in nats."""
    ids = torch.tensor([[*prompt.ids.tolist(), *reply]], device=decoder.device)
    with use_adapter(decoder.net, name):
        logits = decoder.net.get_base_model()(ids, use_cache=False).logits[0]
    predicted = logits[len(prompt.ids) - 1 : -1].float()
    return F.cross_entropy(predicted, ids[0, len(prompt.ids) :])


def _optimise(
    weights: Sequence[torch.nn.Parameter],
    loss_of: Callable[[Sequence[int], int], torch.Tensor],
    check: Callable[[], float],
    config: WeightSteeringConfig,
    *,
    rows: int,
    progress: Progress,
) -> WeightSteering:
    """Lower a loss of rows, and keep the weights with the lowest loss on held-out ones."""
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=0.0)
    losses: list[torch.Tensor] = []
    found: list[tuple[int, float]] = [(0, check())]
    best, kept = 0, [weight.detach().clone() for weight in weights]
    first_norm = 0.0
    order = _order(rows, config)
    for step in range(1, config.steps + 1):
        loss = loss_of(next(order), step)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        if step == 1:
            first_norm = float(norm)
        optimiser.step()
        losses.append(loss.detach())
        progress(step, config.steps, "steps")
        if step % config.evaluate_every == 0 or step == config.steps:
            found.append((step, check()))
            if found[-1][1] < min(value for _, value in found[:-1]):
                best, kept = step, [weight.detach().clone() for weight in weights]
            elif len(found) > config.patience and best <= found[-1 - config.patience][0]:
                break
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
            weight.requires_grad_(False)
    return WeightSteering(
        losses=torch.stack(losses).tolist(),
        validation=found,
        best_step=best,
        gradient_norm=first_norm,
    )


def _order(n: int, config: WeightSteeringConfig) -> Iterator[list[int]]:
    """Draw the prompts of each step: every prompt once before any comes again."""
    draw = np.random.default_rng(config.seed)
    queue: list[int] = []
    while True:
        while len(queue) < config.prompts_per_step:
            queue += draw.permutation(n).tolist()
        yield queue[: config.prompts_per_step]
        del queue[: config.prompts_per_step]


class SteeringRows:
    """Prompts with the beginning of the unsteered replies, run under the steering adapter."""

    def __init__(
        self, decoder: Decoder, prompts: Sequence[SteeringPrompt], *, reply_tokens: int
    ) -> None:
        self._decoder = decoder
        self._prompts = extend_by_replies(decoder, prompts, reply_tokens)

    def loss(
        self, objective: SteeringObjective, chosen: Sequence[int], *, layer_turn: int = 0
    ) -> torch.Tensor:
        """Compute the mean weighted answer loss of some prompts, with its graph.

        Args:
            objective: the answers wanted.
            chosen: indices of the prompts.
            layer_turn: of a decoder that reads one of several layers, which of them by turns.
        """
        readings = self._readings(chosen, layer_turn)
        total = answer_loss(self._decoder, readings, [objective.all_turns] * len(readings))
        return total / len(readings)

    @torch.no_grad()
    def mean_loss(self, objective: SteeringObjective) -> float:
        """Compute the mean weighted answer loss of all prompts."""
        readings = [r for i in range(len(self._prompts)) for r in self._readings([i], 0)]
        turns = [objective.all_turns] * len(readings)
        detached = [replace(r, vectors=torch.as_tensor(r.vectors).detach()) for r in readings]
        return float(answer_loss(self._decoder, detached, turns)) / len(readings)

    def _readings(self, chosen: Sequence[int], layer_turn: int) -> list[Reading]:
        decoder = self._decoder
        named = decoder.config.read_layers
        sampled = bool(named) and decoder.config.combine == "sampled"
        layers = decoder.select_layers(named[layer_turn % len(named)] if sampled else None)
        prompts = [self._prompts[i] for i in chosen]
        with use_adapter(decoder.net, STEER):
            capture = Capture(decoder.net.get_base_model(), layers.layers, gradients=True)
            kept = capture([prompt.ids for prompt in prompts])
        return [
            prompt.reading(layers, [kept[layer][row] for layer in layers.layers])
            for row, prompt in enumerate(prompts)
        ]


def extend_by_replies(
    decoder: Decoder, prompts: Sequence[SteeringPrompt], tokens: int, *, adapter: str | None = None
) -> list[SteeringPrompt]:
    """Put the beginning of the target's own greedy reply behind each prompt."""
    if not tokens:
        return list(prompts)
    ends = ends_of_reply(decoder.tokenizer)
    with use_adapter(decoder.net, adapter):
        replies = generate_ids(
            decoder.net.get_base_model(),
            [prompt.ids.tolist() for prompt in prompts],
            ends,
            Sampling(max_tokens=tokens),
        )
    return [
        replace(prompt, ids=np.concatenate([prompt.ids, np.asarray(reply, np.int32)]))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]


class KLAnchor:
    """Holds the steered target to the unsteered one on texts that have nothing to do with it."""

    _TOKENS = 24

    def __init__(self, decoder: Decoder, prompts: Sequence[SteeringPrompt]) -> None:
        self._decoder = decoder
        self._plain = prompts
        self._texts = extend_by_replies(decoder, prompts, self._TOKENS)

    def divergence(self, turn: int) -> torch.Tensor:
        """Compute KL(unsteered || steered) of the next tokens of one text's reply, in nats."""
        place = turn % len(self._texts)
        start = len(self._plain[place].ids) - 1
        ids = torch.from_numpy(self._texts[place].ids.astype(np.int64))[None]
        ids = ids.to(self._decoder.device)
        with torch.no_grad(), use_adapter(self._decoder.net, None):
            plain = self._log_probabilities(ids, start)
        with use_adapter(self._decoder.net, STEER):
            steered = self._log_probabilities(ids, start)
        return F.kl_div(steered, plain, log_target=True, reduction="batchmean")

    def _log_probabilities(self, ids: torch.Tensor, start: int) -> torch.Tensor:
        net = self._decoder.net.get_base_model()
        logits: torch.Tensor = net(ids, use_cache=False).logits
        return logits[0, start:-1].float().log_softmax(-1)


def save_steering_adapter(
    decoder: Decoder, folder: Path, about: dict[str, Any], *, name: str = STEER
) -> None:
    """Write the steering adapter as an ordinary peft folder, with a JSON of its making beside it.

    Args:
        decoder: on whose network it stands.
        folder: receives it.
        about: facts of its making.
        name: of the adapter.
    """
    net = decoder.net
    net.peft_config[name].base_model_name_or_path = public_name(decoder.binding.model)
    with quiet_libraries():
        net.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    for path in sorted((folder / name).iterdir()):
        shutil.move(path, folder / path.name)
    (folder / name).rmdir()
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_bytes())
    if isinstance(settings["target_modules"], list):
        settings["target_modules"].sort()
    write_json(path, settings)
    write_json(folder / "steering.json", about)
