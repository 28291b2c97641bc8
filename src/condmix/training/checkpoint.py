"""A run's working state on disk: written so that a kill at any moment leaves the last good one whole.

Checkpoints live in <project root>/.checkpoints, outside DVC's outputs: DVC deletes outputs before a stage
runs, and one that persisted would let an experiment start from another's weights. The folder's name is a
hash of everything that the run's weights depend on, so only the same run can resume from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condmix import CondmixError
from condmix.files.artifacts import parse_json, read_checked_tensors, write_checked_tensors
from condmix.files.atomic import exclusive
from condmix.runtime import native
from condmix.tracking.runs import cpu_name


def machine(device: str | torch.device, precision: str, processes: int = 1) -> dict[str, Any]:
    """What of the machine changes the bits of a result; part of a checkpoint's key (`condmix.pipeline.key`).

    A run that goes on elsewhere, on another processor or with another number of threads, would end with weights that
    no machine can make again.
    """
    cuda = torch.device(device).type == "cuda"
    return {
        "torch": torch.__version__,
        "precision": precision,
        "processes": processes,
        "processor": torch.cuda.get_device_name() if cuda else cpu_name(),
        "threads": None if cuda else torch.get_num_threads(),
        "kernels": None if cuda else native.kernels(),
    }


class Checkpoint:
    """The state file of one run: named tensors and a JSON note, replaced as a whole."""

    def __init__(self, root: Path, key: str):
        self.folder = root / ".checkpoints" / key
        self.path = self.folder / "state.safetensors"
        self.remedy = "the same command again, which then trains from the start"

    def lock(self) -> AbstractContextManager[None]:
        """Held while training: two queued runs of the same thing must not share a state file."""
        return exclusive(self.folder / "lock", "the same work")

    def save(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Write beside the old state, flush to the disk, then take its place."""
        try:
            write_checked_tensors(self.path, tensors, {"note": json.dumps(note)})
        except OSError as error:
            raise CondmixError(
                f"the checkpoint {self.path} could not be written ({error}); free some space and run again: "
                "training goes on from the previous checkpoint"
            ) from None

    def load(self, schema: Any = dict) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state as (tensors, note), or None where the run has not saved any.

        CondmixError where it is damaged or its note does not fit the schema (see condmix.files.artifacts).
        """
        if not self.path.exists():
            return None
        tensors, metadata = read_checked_tensors(self.path, self.remedy)
        return tensors, parse_json(metadata.get("note", ""), schema, self.path, self.remedy)

    def remove_finished_others(self) -> None:
        """Delete other runs' states that were trained to the end: by now their models are DVC outputs."""
        for folder in self.folder.parent.iterdir():
            if folder != self.folder and (folder / "finished").exists():
                shutil.rmtree(folder, ignore_errors=True)

    def mark_finished(self) -> None:
        """The model is written; a later run may delete this state."""
        (self.folder / "finished").touch()
