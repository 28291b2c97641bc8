"""A GPU where there is none: "cuda" computes shapes and no numbers, and what passes between it and the CPU is noted.

The device is PyTorch's own stand-in, fake tensors (torch._subclasses.FakeTensorMode), which refuse to be mixed with
tensors of the CPU. What touches the CPU alone is computed as ever. Gradients can't flow: PyTorch's engine asks the
driver for a stream.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import condmix

PACKAGE = Path(condmix.__file__).parent
aten = torch.ops.aten


class PretendGpu(TorchDispatchMode):
    """While it is active, "cuda" is there; `copies` and `waits` count what crosses, by the function of ours it is in.

    copies  from the CPU to the GPU, which the CPU does not wait for (non_blocking)
    waits   the CPU waits until the GPU has done all it was asked: copies of the other kinds, numbers read by .item(),
            bool() or indexing by a mask. What is read or copied back is zeros.
    """

    def __init__(self):
        super().__init__()
        self.copies: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._shapes = FakeTensorMode(allow_non_fake_inputs=True)

    def __enter__(self) -> PretendGpu:
        self._shapes.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._shapes.__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [leaf for leaf in leaves if isinstance(leaf, FakeTensor)]
        asked = kwargs.get("device")
        to_gpu = asked is not None and torch.device(asked).type == "cuda"
        if not ours and not to_gpu:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is aten._to_copy.default:
            if not ours:
                self._note(kwargs.get("non_blocking", False))
            elif asked is not None and not to_gpu:
                self._note(False)
                with unset_fake_temporarily():
                    return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        elif func is aten.copy_.default and len(ours) == 1:
            self._note(args[0] is ours[0] and len(args) > 2 and args[2])
            if args[0] is not ours[0]:
                with unset_fake_temporarily():
                    return args[0].zero_()
        elif func is aten._local_scalar_dense.default:
            self._note(False)
            return False if args[0].dtype is torch.bool else 0
        elif func in (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default):
            for index in tree_leaves(args[1]):
                if isinstance(index, Tensor) and isinstance(index, FakeTensor) != isinstance(args[0], FakeTensor):
                    if isinstance(index, FakeTensor):
                        raise RuntimeError("a tensor on the CPU is indexed by one on the GPU")
                    self._note(False)  # PyTorch moves the index
        try:
            return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise RuntimeError(f"{_where()} waits for the GPU: {error}") from error

    def _note(self, non_blocking: bool) -> None:
        (self.copies if non_blocking else self.waits)[_where()] += 1


class PretendGenerator(torch.Generator):
    """What takes the place of torch.Generator, which needs its device to be there: the CPU's under another name."""

    def __new__(cls, device: torch.device | str = "cpu") -> PretendGenerator:
        made = super().__new__(cls)
        made.named = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.named


def _where() -> str:
    """The innermost function of condmix that is being called, as module.function."""
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            return f"{module}.{frame.f_code.co_qualname.replace('<locals>.', '')}"
        frame = frame.f_back
    return "the test"
