"""The losses of a training loop, read a few steps at a time: reading a number from a GPU waits for all its work."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from condmix import CondmixError

EVERY = 20  # steps


class Losses:
    """Takes each step's loss as it was computed; `values` holds those that were read.

    A loss that is not finite raises CondmixError as it is read, which names its step, counted from 0. `what` it is
    the loss of and the `setting` to lower, with its value `lr`, stand in the message.
    """

    def __init__(self, what: str, setting: str, lr: float):
        self.values: list[float] = []
        self._what, self._setting, self._lr = what, setting, lr
        self._unread: list[Tensor] = []

    def add(self, loss: Tensor) -> bool:
        """Note the loss () of the next step; returns whether this was a time to read."""
        self._unread.append(loss.detach())
        if len(self._unread) < EVERY:
            return False
        self.read()
        return True

    def read(self) -> None:
        """Read what was added since."""
        if not self._unread:
            return
        for value in torch.stack(self._unread).tolist():
            if not math.isfinite(value):
                step = len(self.values)
                raise CondmixError(
                    f"{self._what}'s loss became {value} at step {step}: lower {self._setting} ({self._lr:g})"
                )
            self.values.append(value)
        self._unread.clear()
