"""`condmix generate`: pictures of a trained model (condmix.sampling.loaded), as one sheet or as single files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from condmix import CondmixError
from condmix.diffusion.model import read_card
from condmix.files.atomic import replacing
from condmix.sampling.loaded import load
from condmix.sampling.record import (
    Record,
    alone,
    check_model,
    check_prior,
    read_record,
    record_of,
    request_of,
    save_png,
)
from condmix.sampling.request import Request, check_seeds
from condmix.sampling.sample import grid
from condmix.sampling.setup import DEMO
from condmix.settings.load import VARIANTS, unknown

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_PIXELS = 16_383  # of a side, which is WebP's limit
MOST_FILES = 10_000


@dataclass(frozen=True)
class Output:
    """Which model draws, and where the pictures go: one sheet, or a file each where `out` ends in "/" or is a folder.

    `variant` may be "demo", the model that comes with condmix. `scale` enlarges each pixel. None is what it was in the
    picture that is drawn again.
    """

    variant: str | None
    out: str
    scale: int | None

    @property
    def path(self) -> Path:
        return Path(self.out)

    @property
    def single(self) -> bool:
        """Whether each picture is a file of its own."""
        return self.out.endswith("/") or (os.path.isdir(self.out) and self.path.suffix.lower() not in FORMATS)


def main(request: Request, output: Output, like: Path | None = None) -> list[Path]:
    """Draw the pictures of `request` and write them; the files that were written.

    With `like`, a PNG that condmix drew, everything that `request` does not have is as it was made; of a file that
    holds one of several pictures that one is made again. Its seed and number are then those of this picture: a given
    seed draws it from that seed, and with a given n it is the first of as many. CondmixError for an invalid option,
    before anything is drawn.
    """
    record = None if like is None else read_record(like)
    model = load(_model(output.variant, record))
    chosen, scale = None, output.scale or 1
    if like is not None and record is not None:
        check_model(record, model, like)
        if "seed" in request or "n" in request:
            record = alone(record)
        chosen = None if "n" in request else record["picture"]
        request, scale = request_of(record, request, model), output.scale or record["scale"]
    n = request.get("n", 1)
    check_seeds(n, request.get("seed", 0))
    check_size(n, model.size, scale, as_sheet=chosen is None and not output.single)
    if chosen is not None and chosen >= n:
        raise CondmixError(f"{like}: its record is damaged, as it says that this is picture {chosen + 1} of {n}")
    drawing = model.checked(**request)
    if record is not None:
        check_prior(record, model, drawing)
        drawing = replace(
            drawing,
            batch_size=record["batch_size"],
            sampling=replace(drawing.sampling, last_time=record["last_time"]),
        )
    check_out(output)
    pictures, files, made = drawing(), _files(output, n, chosen), record_of(model, drawing, scale)
    for path, number in files.items():
        pixels = grid(pictures, scale=scale) if number is None else pictures[number].repeat(scale, 0).repeat(scale, 1)
        save(path, pixels, {**made, "picture": number})
    return list(files)


def _model(variant: str | None, record: Record | None) -> str:
    """The name of the model that draws; what the demo drew is drawn by the demo, whatever else was trained."""
    if variant is not None and variant not in ("demo", *VARIANTS):
        raise CondmixError(unknown("variant", variant, list(VARIANTS), "--variant"))
    if record is None:
        return variant or "experiment"
    own = "demo" if record["model"] == read_card(DEMO)["sha256"] else record["variant"]
    if variant is not None and variant != own:
        given = "--demo" if variant == "demo" else f"--variant {variant}"
        raise CondmixError(f"the picture was drawn by {own}, which draws it again: leave out {given}")
    if own == "demo":
        return own
    if own not in VARIANTS:  # a file must not decide what is opened, or fetched from the hub
        raise CondmixError(f"the picture's record is damaged: {unknown('variant', own, list(VARIANTS))}")
    return own


def _files(output: Output, n: int, chosen: int | None) -> dict[Path, int | None]:
    """{file: which picture it holds}, None for a sheet of all."""
    if not output.single:
        return {output.path: chosen}
    digits = len(str(n - 1))
    return {output.path / f"{i:0{digits}}.png": i for i in (range(n) if chosen is None else [chosen])}


def save(path: Path, pixels: np.ndarray, record: Record) -> None:
    """Write (H, W, 3) uint8 in the format that the name says; a PNG says how it was made."""
    form = FORMATS[path.suffix.lower()]
    if form == "PNG":
        save_png(path, pixels, record)
    else:
        with replacing(path) as part:
            Image.fromarray(pixels).save(part, form)


def weights_of(texts: Sequence[str]) -> dict[str, float]:
    """{perspective: weight} from texts NAME=NUMBER."""
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if math.isnan(weight):
            raise CondmixError(f'--weight takes NAME=NUMBER, as in caption_1=2; "{text}" was given')
        if name in weights:
            raise CondmixError(f"--weight was given twice for {name}; give it one weight")
        weights[name] = weight
    return weights


def check_size(n: int, size: int, scale: int, as_sheet: bool) -> None:
    """What n pictures are written to must be what formats and folders can hold."""
    side = (math.ceil(math.sqrt(n)) * (size + 1) + 1) * scale if as_sheet else size * scale
    if side > MOST_PIXELS:
        raise CondmixError(
            f"--n {n} and --scale {scale} make a {'sheet' if as_sheet else 'picture'} {side:,} pixels wide, more than "
            f"{MOST_PIXELS:,}; lower --scale{' or --n' if as_sheet else ''}"
        )
    if not as_sheet and n > MOST_FILES:
        raise CondmixError(f"--n {n} would draw more than {MOST_FILES:,} pictures; lower it, and go on with --seed")


def check_out(output: Output) -> None:
    """Make the folder, and see that files can be written there, in a format that the name says."""
    out = output.path
    if output.single:
        first = out / "0.png"
    elif out.suffix.lower() in FORMATS:
        first = out
    else:
        raise CondmixError(
            f"--out {output.out}: the name must end in {', '.join(FORMATS)}, as in grid.png, or in / for a folder of "
            "single pictures"
        )
    try:
        if not output.single and out.exists() and not out.is_file():
            raise CondmixError(f"--out {out} is there already and is not a file; give another name")
        first.parent.mkdir(parents=True, exist_ok=True)
        part = first.with_name(f".{first.name}.part")  # as it is written to first
        part.touch()
        part.unlink()
    except OSError as error:
        raise CondmixError(f"--out {output.out} can't be written ({error.strerror}); give another name") from None
