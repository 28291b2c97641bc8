"""docs/products.png out of a trained profile `fashion`: drawn products above the captions that they were drawn from.

PYTHONPATH=src python benchmarks/products_picture.py

Only drawn pictures: the data set's own are not ours to show.
"""

import textwrap
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

import condmix
from condmix.data.captions import read_captions
from condmix.settings.load import load

SCALE, GAP, LABEL, TEXT = 4, 8, 96, 126  # screen pixels: per pixel, between pictures, of the labels, of the captions
ROWS = {"from both": 2, "from the\nfirst alone": 1}  # label -> how many captions


@click.command()
@click.option("--count", default=8, show_default=True, help="Held-out products, the first ones: none is chosen.")
@click.option("--out", default=Path("docs/products.png"), type=click.Path(path_type=Path), show_default=True)
def main(count: int, out: Path) -> None:
    params = load(profile="fashion")
    model = condmix.load(params.paths.model("experiment"))
    captions = [texts[:2] for texts in read_captions(params.paths.captions, "test")[:count]]
    side = SCALE * params.data.image_size
    sheet = Image.new("RGB", (LABEL + count * (side + GAP), len(ROWS) * (side + GAP) + TEXT), "white")
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(size=14), ImageFont.load_default(size=12)
    for row, (label, given) in enumerate(ROWS.items()):
        top = row * (side + GAP)
        pen.multiline_text((4, top + side / 2), label, fill="black", font=font, anchor="lm", spacing=4)
        for column, texts in enumerate(captions):
            [picture] = model(captions=texts[:given], seed=column)
            sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (LABEL + column * (side + GAP), top))
    top = len(ROWS) * (side + GAP)
    pen.text((4, top), "captions", fill="black", font=font)
    for column, texts in enumerate(captions):
        lines = "\n\n".join("\n".join(textwrap.wrap(f"“{text}”", 20)) for text in texts)
        pen.multiline_text((LABEL + column * (side + GAP), top), lines, fill="black", font=small, spacing=3)
    sheet.save(out, optimize=True)
    print(f"{out}: {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
    main()
