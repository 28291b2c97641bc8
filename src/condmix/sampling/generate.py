"""`condmix generate`: pictures of a trained model (condmix.sampling.loaded), laid out as one picture file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from condmix import CondmixError
from condmix.files.atomic import replacing
from condmix.sampling.loaded import LoadedModel, Request
from condmix.sampling.sample import grid
from condmix.settings.load import VARIANTS, Params, unknown

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_PIXELS = 16_383  # of a side, which is WebP's limit


def main(params: Params, variant: str, request: Request, scale: int, out: Path) -> None:
    """Draw the pictures of `request` and write them to `out` as one sheet, each pixel enlarged `scale` times.

    CondmixError for an invalid option, before anything is drawn.
    """
    if variant not in VARIANTS:
        raise CondmixError(unknown("variant", variant, list(VARIANTS), "--variant"))
    model = LoadedModel(params.paths.model(variant), params)
    check_sheet(request["n"], model.size, scale)
    draw = model.checked(**request)
    check_out(out)
    sheet = grid(draw(), scale=scale)
    with replacing(out) as part:
        Image.fromarray(sheet).save(part, FORMATS[out.suffix.lower()])


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


def check_sheet(n: int, size: int, scale: int) -> None:
    """The sheet of n pictures must be one that its formats can hold."""
    side = (math.ceil(math.sqrt(n)) * (size + 1) + 1) * scale
    if side > MOST_PIXELS:
        raise CondmixError(
            f"--n {n} and --scale {scale} make a sheet {side:,} pixels wide, more than {MOST_PIXELS:,}; "
            "lower --scale or --n"
        )


def check_out(out: Path) -> None:
    """Make the folder, and see that the file can be written there, in a format that its name says."""
    if out.suffix.lower() not in FORMATS:
        raise CondmixError(f"--out {out}: the name must end in {', '.join(FORMATS)}, as in grid.png")
    try:
        if out.exists() and not out.is_file():
            raise CondmixError(f"--out {out} is there already and is not a file; give another name")
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")  # as it is written to first
        part.touch()
        part.unlink()
    except OSError as error:
        raise CondmixError(f"--out {out} can't be written ({error.strerror}); give another name") from None
