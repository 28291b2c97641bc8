"""Which pictures belong to which split, and which are held out where nobody made a test split."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from condmix import CondmixError

from . import SPLITS


def scattered(name: str) -> bytes:
    """A key that sorts names in an order as good as random, and always the same."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def chosen(name: str, percent: int) -> bool:
    """Whether a name is one of this share, by its hash."""
    return int.from_bytes(scattered(name)[-8:]) % 100 < percent


def held_out_percent(settings: dict) -> int | None:
    """The only setting of `data.world`; CondmixError on anything else."""
    percent = settings.get("held_out_percent")
    if settings.keys() - {"held_out_percent"} or (percent is not None and not 1 <= percent <= 99):
        raise CondmixError(f"data.world takes held_out_percent, from 1 to 99, given: {settings}")
    return percent


def divide(names: Sequence[str], placed: Sequence[str | None], settings: dict, source: Path) -> dict[str, list[int]]:
    """Which of the pictures belong to each split, as places in `names`; CondmixError where a split has none.

    `placed` is the split that a picture's folder or shard names, None where it names neither. Without a test split,
    the setting held_out_percent (1 to 99) takes that share of the pictures, chosen by the hash of their names.
    """
    percent = held_out_percent(settings)
    given = [split for split in SPLITS if split in placed]
    if percent is None:
        rows = {split: [row for row, place in enumerate(placed) if place == split] for split in SPLITS}
    elif "test" in given:
        raise CondmixError(f"{source} has pictures in test, so nothing is held out: remove data.world.held_out_percent")
    else:
        rows = {split: [] for split in SPLITS}
        for row, (name, place) in enumerate(zip(names, placed, strict=True)):
            if not given or place in given:
                rows["test" if chosen(name, percent) else "train"].append(row)
    for split in SPLITS:
        if not rows[split] and percent is None:
            raise CondmixError(
                f"{source} has no pictures in {split}: put some there, or leave out train and test "
                "and set data.world: {held_out_percent: 5}"
            )
        if not rows[split]:
            raise CondmixError(f"{source}: holding out {percent}% of {len(names)} pictures leaves none in {split}")
    return rows
