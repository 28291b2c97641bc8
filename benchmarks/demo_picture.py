"""docs/demo.png out of a reproduced demo: real scenes and what the variants drew for them, its rows labelled.

PYTHONPATH=src python benchmarks/demo_picture.py
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from condmix.sampling.sample import grid
from condmix.settings.load import load

SCALE, LABEL = 5, 190  # screen pixels per pixel, without smoothing; width of the labels


@click.command()
@click.option("--count", default=10, show_default=True, help="Pictures of a row, the first ones: none is chosen.")
@click.option("--out", default=Path("docs/demo.png"), type=click.Path(path_type=Path), show_default=True)
def main(count: int, out: Path) -> None:
    details = load().paths.metrics / "details"
    rows = {
        "real, held out": details / "experiment" / "real.npy",
        "two captions\n(experiment)": details / "experiment" / "captions.npy",
        "one caption\n(caption)": details / "caption" / "captions.npy",
        "class + one caption\nas prompt (class_v2)": details / "class_v2" / "prompt.npy",
        "class + the picture's own\nCLIP vector (class_v2)": details / "class_v2" / "oracle.npy",
    }
    strips = [grid(np.load(path)[:count], columns=count, scale=SCALE) for path in rows.values()]
    sheet = np.full((sum(map(len, strips)), LABEL + strips[0].shape[1], 3), 255, np.uint8)
    sheet[:, LABEL:] = np.concatenate(strips)
    image = Image.fromarray(sheet)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    for row, label in enumerate(rows):
        middle = (row + 0.5) * len(strips[0])
        pen.multiline_text((8, middle), label, fill="black", font=font, anchor="lm", spacing=4)
    image.save(out, optimize=True)
    print(f"{out}: {image.width} x {image.height} pixels")


if __name__ == "__main__":
    main()
