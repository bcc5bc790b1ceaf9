"""How much memory a stretch of work takes at its peak, told by rehearsing it: shapes are computed, numbers are not."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_iter

_STAGE = FakeTensorMode(allow_non_fake_inputs=True)  # all networks of a rehearsal play on one


class Meter(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive while it is on; `peak` is the most at one time.

    What operators take beside their results is not seen, but for convolutions on a CPU, which copy their input and
    output into another order (oneDNN): counted at their sizes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._alive = 0
        self._storages: dict[int, int] = {}

    def load(self, network: nn.Module, passing: Sequence[nn.Module] = ()) -> None:
        """A network has come: all that it is made of is alive until it goes; of `passing` blocks two at a time."""
        sizes = {block: sum(map(_bytes, (*block.parameters(), *block.buffers()))) for block in passing}
        for block in sorted(passing, key=lambda block: sizes[block])[:-2]:
            for tensor in (*block.parameters(), *block.buffers()):
                self._storages[tensor.untyped_storage()._cdata] = 0
        for tensor in (*network.parameters(), *network.buffers()):
            self._see(tensor)
        self.peak = max(self.peak, self._alive)

    @contextmanager
    def phase(self) -> Iterator[list[int]]:
        """The peak within, as the one number of the list that is given, once it is over."""
        found: list[int] = []
        self.peak = self._alive
        yield found
        found.append(self.peak)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.is_nonzero.default and isinstance(args[0], FakeTensor):
            return False  # whoever branches on a number that is not there
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in _places(index)], *args[2:])
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        beside = 0
        if func is torch.ops.aten.convolution.default and args[0].device.type == "cpu":
            beside = _bytes(args[0]) + _bytes(out)
        self.peak = max(self.peak, self._alive + beside)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage.nbytes()
            self._alive += storage.nbytes()
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._alive -= self._storages.pop(key, 0)


def load(network: nn.Module, passing: Sequence[nn.Module] = ()) -> None:
    """Tell the meter that is on, if one is, that a network has been loaded, and which of its blocks only pass."""
    for mode in _get_current_dispatch_mode_stack():
        if isinstance(mode, Meter):
            mode.load(network, passing)


@contextmanager
def unmetered() -> Iterator[None]:
    """What is made within is not counted: it stands for what is never there at once."""
    with _disable_current_modes():
        yield


@contextmanager
def rehearsed(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Networks that are made within have shapes on that device, and no numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _STAGE, torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _places(index: Tensor | None) -> tuple[Tensor | None, ...]:
    """A mask of true numbers as the places that it picks: how many they are decides a shape."""
    if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
        return (index,)
    return index.nonzero(as_tuple=True)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
