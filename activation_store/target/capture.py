"""The target's forward pass, up to the deepest read layer, with the outputs of the read layers.

Shapes: B sequences, T tokens, D d_model.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from activation_store.target.host_copy import send
from activation_store.target.load import blocks, rope_switch
from core.errors import ModelError, first_line

_LOG = logging.getLogger(__name__)
S = TypeVar("S")
R = TypeVar("R")


class _StopForward(Exception):
    """Ends a forward pass at the deepest block wanted; no later block and no head runs."""


class _KeepsNothing(DynamicCache):
    """A cache without keys and values."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states


def without_look(net: Any) -> dict[str, Any]:
    """Return the arguments of a pass without a mask that keep the host from waiting for a GPU.

    Given a cache, transformers does not look at the positions for sequences that share a row, as it
    does at every pass otherwise.

    Args:
        net: a causal language model, possibly wrapped by peft.

    Returns:
        Nothing on a CPU, and for a model whose cache holds more than keys and values.
    """
    config: Any = net.config
    device = next(net.parameters()).device
    if device.type == "cpu" or getattr(config, "num_kv_shared_layers", None):
        return {}
    cache = _KeepsNothing(config=config)
    own = (DynamicLayer, DynamicSlidingWindowLayer)
    return {"past_key_values": cache} if all(type(x) in own for x in cache.layers) else {}


class Capture:
    """Runs a model on right-padded batches and keeps block outputs.

    Right padding needs no mask: attention is causal, so no token sees one behind it.

    Attributes:
        device: where the model is.
    """

    def __init__(self, net: nn.Module, layers: Sequence[int], *, gradients: bool = False) -> None:
        """Prepare a model.

        Args:
            net: the model.
            layers: blocks whose outputs are kept.
            gradients: whether outputs keep the graph of the weights that take gradients.
        """
        self._net = net
        self._gradients = gradients
        self._layers = tuple(layers)
        self._blocks = blocks(net)
        self.device = next(net.parameters()).device
        self._rope_switch = rope_switch(net)
        # processes that share the weights meet in every block, and so run all of them
        self._shared = (getattr(net, "tp_size", None) or 1) > 1

    def __call__(self, sequences: Sequence[np.ndarray[Any, Any]]) -> dict[int, torch.Tensor]:
        """Return block outputs [B, T, D] by layer; rows behind a sequence's end are meaningless.

        Args:
            sequences: B arrays of token ids; T is the length of the longest.

        Raises:
            ModelError: a block's output is not [B, T, D].
        """
        lengths = np.array([len(ids) for ids in sequences])
        short = lengths <= (self._rope_switch or lengths.max())
        if short.all() or not short.any():
            return self._run(sequences)
        # past that length all positions of a batch are encoded otherwise, those of short rows too
        out: dict[int, torch.Tensor] = {}
        for rows in (np.flatnonzero(short).tolist(), np.flatnonzero(~short).tolist()):
            for layer, values in self._run([sequences[i] for i in rows]).items():
                if layer not in out:
                    shape = (len(sequences), int(lengths.max()), values.shape[2])
                    out[layer] = values.new_zeros(shape)
                out[layer][rows, : values.shape[1]] = values
        return out

    def _run(self, sequences: Sequence[np.ndarray[Any, Any]]) -> dict[int, torch.Tensor]:
        batch_BT = self._padded(sequences)
        kept: dict[int, torch.Tensor] = {}
        deepest = max(self._layers)

        def keep(layer: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                states = output if isinstance(output, torch.Tensor) else output[0]
                kept[layer] = self._checked(states, batch_BT)
                if layer == deepest and not self._shared:
                    raise _StopForward

            return hook

        handles = [self._blocks[k].register_forward_hook(keep(k)) for k in self._layers]
        # a network whose weights are shared among processes (torch's FSDP2) has it
        tidy: Callable[[], None] | None = getattr(self._net, "reset_iter_state", None)
        try:
            # weights that are gathered in inference mode could not be trained through later
            with self._gradient_mode(shared=self._shared or tidy is not None):
                self._net(batch_BT, use_cache=False, **without_look(self._net))
        except _StopForward:
            if tidy:
                tidy()  # torch has not seen this pass end
        finally:
            for handle in handles:
                handle.remove()
        if skipped := sorted(set(self._layers) - kept.keys()):
            config: Any = self._net.config
            raise ModelError(
                f"model of type {config.model_type}: block {skipped[0]} does not run on text alone "
                "(cross-attention to an image?). Change dump.layers."
            )
        return kept

    def _gradient_mode(self, *, shared: bool) -> contextlib.AbstractContextManager[Any]:
        if self._gradients:
            return torch.enable_grad()
        return torch.no_grad() if shared else torch.inference_mode()

    def _checked(self, output: torch.Tensor, batch_BT: torch.Tensor) -> torch.Tensor:
        config: Any = self._net.config
        # AltUp, hyper-connections: several streams side by side, or one behind the other
        if output.ndim != 3 or output.shape[:2] != batch_BT.shape:
            raise ModelError(
                f"model of type {config.model_type}: the output of a block has shape "
                f"{list(output.shape)} for {list(batch_BT.shape)} tokens, expected [rows, tokens, "
                "d_model]; models with several residual streams are not supported."
            )
        return output

    def _padded(self, sequences: Sequence[np.ndarray[Any, Any]]) -> torch.Tensor:
        """Return token ids [B, T] on the device."""
        longest = max(len(ids) for ids in sequences)
        batch_BT = np.zeros((len(sequences), longest), np.int64)
        for row, ids in zip(batch_BT, sequences, strict=True):
            row[: len(ids)] = ids
        return send(torch.from_numpy(batch_BT), self.device)


def split_to_fit(
    run: Callable[[Sequence[S]], R], batch: Sequence[S]
) -> Iterator[tuple[R, Sequence[S]]]:
    """Run a batch, or where the device has no room for it, its halves.

    The rule is fixed: a part of n that does not fit is cut behind its first ceil(n / 2), and each
    half is tried by itself, the first one first. So one machine always makes the same parts.

    Args:
        run: called with a part of the batch.
        batch: sequences.

    Yields:
        A result of `run`, and the part of `batch` that it is of.

    Raises:
        ModelError: not even one sequence fits.
    """
    left = [batch]
    while left:
        part = left.pop(0)
        try:
            found = run(part)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise ModelError(
                    "the device has no room for a single sequence of this target: "
                    f"{first_line(error)}. Use a smaller dump.max_tokens, a dump.compute_dtype of "
                    "16 bits, or another runtime.device."
                ) from error
            half = -(-len(part) // 2)
            left[:0] = [part[:half], part[half:]]
            _LOG.warning(
                "a batch of %d sequences does not fit on the device and is halved; a smaller "
                "dump.batch_tokens saves the attempt.",
                len(part),
            )
        else:
            yield found, part
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # here, where the error no longer holds on to its tensors


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocation failed: CUDA has a type for it, other devices have words."""
    words = ("out of memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error).lower() for w in words)
