"""A made-up accelerator: its tensors have shape, number format and place, but no numbers.

The CPU computes as ever, and only what touches the device runs on torch's fake tensors. So a batch
is made for real and moved, and from there on these fail as they would be wrong or slow on a GPU:

- an operation on tensors of both devices (`FakeTensorDeviceMismatchError`);
- what makes the host wait for the device: `.item()`, `bool()`, `.tolist()`, a mask as an index
  (`DataDependentOutputException`, `DynamicOutputShapeException`).

A copy to the CPU is allowed, gives zeros (true, of bools), and is counted by the function that made
it: a test says which functions read, and how often. What it cannot show: numbers, memory, kernels
that are not there, the order of streams, `transformers`' own `generate`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import masking_utils
from transformers.utils import import_utils

BACKEND = "madeup"
_CHECKOUT = str(Path(__file__).parents[1])
_TESTS = str(Path(__file__).parent)


class _Module:
    """What torch asks of a backend; there is none but while a test uses it."""

    open = False

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return self.open

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def device_count(self) -> int:
        return 2 * int(self.open)


_MODULE = _Module()


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return _MODULE.open

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


@functools.cache
def _mode() -> FakeTensorMode:
    """Return the one mode of this process: what was moved stays usable in a later test."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@functools.cache
def _register() -> torch.device:
    _setup_privateuseone_for_python_backend(BACKEND, backend_module=_MODULE, hook=_Hooks())
    return torch.device(BACKEND, 0)


def _is_here(place: Any) -> bool:
    return place is not None and torch.device(place).type == BACKEND


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes tensors on the device with fake ones, and copies to the CPU with zeros."""

    def __init__(self, fakes: FakeTensorMode, reads: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fakes, self._reads = fakes, reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        place = kwargs.get("device")
        if _is_here(place):
            with self._fakes:
                return func(*tree_map_only(torch.Tensor, self._without_numbers, args), **kwargs)
        if place is not None and any(isinstance(x, FakeTensor) for x in tree_leaves(args)):
            self._reads[_caller()] += 1
            kept: torch.Tensor = args[0]
            return _readable(kept.shape, kwargs.get("dtype") or kept.dtype)
        return func(*args, **kwargs)

    def _without_numbers(self, value: torch.Tensor) -> torch.Tensor:
        return value if isinstance(value, FakeTensor) else self._fakes.from_tensor(value)


class _FromNumbers(TorchFunctionMode):
    """Makes a tensor of Python numbers on the CPU first: the device has nowhere to put them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_here(kwargs.get("device")):
            place = kwargs.pop("device")
            return func(*args, **kwargs).to(place)
        return func(*args, **kwargs)


def _readable(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    return (
        torch.ones(shape, dtype=dtype) if dtype == torch.bool else torch.zeros(shape, dtype=dtype)
    )


def _caller() -> str:
    """Name the function of the project, or of the test, that is running."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        ours = file.startswith(_CHECKOUT) and "site-packages" not in file and file != __file__
        if ours:
            return frame.f_code.co_qualname
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


class FakeDevice:
    """The device while it is open.

    Attributes:
        device: its place.
        reads: copies to the CPU so far, by the function that made them.
    """

    def __init__(self, reads: Counter[str]) -> None:
        self.device = _register()
        self.reads = reads


def move(net: nn.Module, device: torch.device | None = None) -> None:
    """Put the weights and buffers of `net` on the open device, in place; ties are kept.

    Args:
        net: the module.
        device: another one of the backend; None for the first.
    """
    moved: dict[int, torch.Tensor] = {}
    place = device or _register()

    def there(value: torch.Tensor) -> torch.Tensor:
        found = value.detach().to(place)
        if isinstance(value, nn.Parameter):
            return nn.Parameter(found, requires_grad=value.requires_grad)
        return found

    for module in net.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    moved.setdefault(id(value), there(value))
                    held[name] = moved[id(value)]  # type: ignore[assignment]


def spread(net: nn.Module, blocks: Iterable[nn.Module], *rest: nn.Module) -> None:
    """Put `net` on the first device but for `blocks`, with the hooks that accelerate puts on them.

    Args:
        net: the module.
        blocks: of it, those of the second device.
        rest: modules behind them that are on the first again.
    """
    first, second = _register(), torch.device(BACKEND, 1)
    move(net, first)
    for block in blocks:
        move(block, second)
        add_hook_to_module(block, AlignDevicesHook(execution_device=second))
    for module in rest:
        add_hook_to_module(module, AlignDevicesHook(execution_device=first))


@contextlib.contextmanager
def fake_device(*, looks_at_padding: bool = False) -> Iterator[FakeDevice]:
    """Provide the device while the context is open.

    Args:
        looks_at_padding: allow transformers to ask the device at each pass whether a mask of
            padding is all ones, as it does for models with windows.
    """
    _register()
    reads: Counter[str] = Counter()
    # transformers asks a device less where it knows that its tensors have no numbers
    honest = mock.patch.object(import_utils, "is_fake_tensor", return_value=False)
    padded = mock.patch.object(masking_utils, "fast_all", return_value=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(honest)
        if looks_at_padding:
            stack.enter_context(padded)
        stack.enter_context(mock.patch.object(_MODULE, "open", True))
        stack.enter_context(_Dispatch(_mode(), reads))
        stack.enter_context(_FromNumbers())
        yield FakeDevice(reads)
