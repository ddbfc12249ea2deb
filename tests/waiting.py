"""What waits for a GPU, found out on a CPU: torch's fake tensors say that they are on `cuda`, and hold no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Copies(TorchDispatchMode):
    """Refuses copies between CPU and GPU that the CPU waits for, such as those that `torch.tensor(..., device=...)` makes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if "grid_sampler" in str(func):  # of which fake tensors know nothing
            return args[0].new_empty(*args[0].shape[:2], *args[1].shape[1:3])
        out = func(*args, **kwargs)
        tensors = [value for value in tree_leaves((args, out)) if isinstance(value, Tensor)]
        places = {value.device.type for value in tensors if value.ndim or value.device.type != "cpu"}
        beside = kwargs.get("non_blocking") or (func is torch.ops.aten.copy_.default and args[2:])
        if len(places) > 1 and not beside:
            raise AssertionError(f"{func} waits for the device")
        return out


@contextmanager
def no_waiting() -> Iterator[FakeTensorMode]:
    """Let nothing inside wait for a copy to or from a GPU; whatever depends on values (`nonzero`, `item`) raises torch's errors."""
    with FakeTensorMode() as fake, _Copies():
        yield fake


def on_fake_gpu(fake: FakeTensorMode, module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers there, for `torch.func.functional_call`."""
    state = {name: fake.from_tensor(value) for name, value in (*module.named_parameters(), *module.named_buffers())}
    return {name: value.to("cuda", non_blocking=True) for name, value in state.items()}
