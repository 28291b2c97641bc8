"""The demo world: drawn scenes whose every attribute is known, in the official CIFAR-10 and COCO formats.

An object of a shape (the class), colour, size and position stands on a background of one colour.
Five captions name three of these five attributes each. The pictures are in both archives: losslessly in
the CIFAR-10 one, from which they are read, and as JPEGs in the COCO zips, whose captions are read.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from condmix import CondmixError
from condmix.files.atomic import write_text

from . import SPLITS, Dataset
from ._archives import check_regular
from ._cifar_format import CifarArchive, write_cifar
from ._coco_format import CocoArchive, write_annotations, write_coco
from ._json import parse
from ._scenes import ATTRIBUTES, SIDE, Dice, divide, picture, values_of
from ._wording import claims, describe

TRUTH = "attributes.json"
AGAIN = "run the stage fetch again"
MOST_SCENES = 300_000  # of a split: as many as one batch of the CIFAR-10 format may hold here
COMPARED = 16  # pictures whose two copies are compared
JPEG_ERROR = 16  # grey levels; two copies of a picture differ by about 2, two pictures by about 60


class Demo(Dataset):
    """Pictures and labels come from the CIFAR-10 archive, captions from COCO's, truth from attributes.json.

    `settings` of `draw`: {"train": scenes, "test": scenes, "seed": any whole number from 0}.
    """

    attributes = ATTRIBUTES
    class_names = ATTRIBUTES["shape"]

    def __init__(self, archives: Path, settings: dict):
        super().__init__(archives, settings)
        self._cifar = CifarArchive(self.archives)
        self._coco = CocoArchive(self.archives, {})
        self._truth: dict | None = None

    @staticmethod
    def draw(archives: Path, settings: dict) -> None:
        """Writes the archives and attributes.json. Scene i of a split is the same however many are drawn."""
        archives = Path(archives)
        archives.mkdir(parents=True, exist_ok=True)
        counts, seed = read_settings(settings)
        combinations = divide(seed)
        images, labels, truth = {}, {}, {}
        captions: dict[str, dict[int, list[str]]] = {}
        first_id = 1
        for number, split in enumerate(SPLITS):
            ids = range(first_id, first_id + counts[split])
            first_id = ids.stop
            images[split] = np.empty((counts[split], SIDE, SIDE, 3), np.uint8)
            captions[split], values, mentions = {}, [], []
            for row, scene in enumerate(tqdm(ids, f"draw {split}", unit="scene", mininterval=0.5)):
                dice = Dice(seed, number, row)
                values.append(values_of(dice.pick(combinations[split])))
                images[split][row] = picture(values[-1], dice)
                captions[split][scene], named = describe(values[-1], dice)
                mentions.append(["".join("01"[flag] for flag in flags) for flags in named])
            labels[split] = [row[0] for row in values]
            truth[split] = {"ids": list(ids), "values": values, "mentions": mentions}
            write_coco(
                archives,
                split,
                list(ids),
                tqdm(images[split], f"write {split}", unit="scene", mininterval=0.5),
            )
        write_cifar(archives, images, labels, ATTRIBUTES["shape"])
        write_annotations(archives, captions, SIDE, "condmix demo world")
        write_truth(archives / TRUTH, truth)

    @staticmethod
    def check_settings(settings: dict) -> None:
        read_settings(settings)

    def ids(self, split: str) -> list[int]:
        return self._coco.ids(split)

    def images(self, split: str) -> Iterator[np.ndarray]:
        images = self._cifar.split(split)[0]
        self._check_copies(split, images)
        yield from images

    def labels(self, split: str) -> np.ndarray:
        return self._cifar.split(split)[1]

    def captions(self, split: str) -> list[list[str]]:
        captions = self._coco.captions(split)
        for row, (texts, named) in enumerate(zip(captions, self._of_split(split)["mentions"], strict=True)):
            if len(texts) != len(named) or not all(map(str.strip, texts)):
                raise CondmixError(
                    f"{self.archives}: picture {row} of {split} has other captions than {TRUTH} tells of: {AGAIN}"
                )
        return captions

    def attribute_values(self, split: str) -> np.ndarray:
        return np.array(self._of_split(split)["values"], np.int64)

    def mentions(self, split: str) -> np.ndarray:
        rows = self._of_split(split)["mentions"]
        return np.array([[[flag == "1" for flag in caption] for caption in row] for row in rows], bool)

    def claims(self, caption: str) -> list[int]:
        return claims(caption)

    def _of_split(self, split: str) -> dict:
        if self._truth is None:
            self._truth = read_truth(self.archives / TRUTH)
        truth: dict[str, Any] = self._truth[split]
        if truth["ids"] != self.ids(split):
            raise CondmixError(
                f"{self.archives / TRUTH} and the COCO annotations list different pictures of {split}: {AGAIN}"
            )
        return truth

    def _check_copies(self, split: str, images: np.ndarray) -> None:
        """The first pictures of the CIFAR-10 archive are those of the COCO zip, but for JPEG's losses."""
        if len(images) != len(self.ids(split)):
            raise CondmixError(
                f"{self.archives}: the CIFAR-10 archive has {len(images)} pictures of {split}, "
                f"the COCO annotations {len(self.ids(split))}: {AGAIN}"
            )
        for row, jpeg in enumerate(islice(self._coco.images(split), COMPARED)):
            same_size = jpeg.shape == images[row].shape
            if not same_size or np.abs(jpeg - images[row].astype(float)).mean() > JPEG_ERROR:
                raise CondmixError(
                    f"{self.archives}: picture {row} of {split} differs between the CIFAR-10 and the COCO archive: "
                    f"{AGAIN}"
                )


def read_settings(settings: dict) -> tuple[dict[str, int], int]:
    """Scenes per split, and the seed; raises CondmixError on anything else."""
    known = {*SPLITS, "seed"}
    if settings.keys() != known or not all(type(value) is int for value in settings.values()):
        raise CondmixError(f"the demo world needs the whole numbers {sorted(known)}, given: {settings}")
    if not all(1 <= settings[split] <= MOST_SCENES for split in SPLITS) or settings["seed"] < 0:
        raise CondmixError(
            f"the demo world needs 1 to {MOST_SCENES:,} scenes per split and a seed from 0, given: {settings}"
        )
    return {split: settings[split] for split in SPLITS}, settings["seed"]


def write_truth(path: Path, scenes: dict) -> None:
    """attributes.json: what the columns mean; per split the ids, values and, per caption, a 0/1 per attribute."""
    write_text(path, json.dumps({"attributes": ATTRIBUTES, "scenes": scenes}))


def read_truth(path: Path) -> dict:
    """split -> its ids, values and mentions, as `write_truth` was given them."""
    check_regular(path)
    try:
        truth = parse(path.read_bytes())
        if truth["attributes"] != ATTRIBUTES:
            raise CondmixError(f"{path} was drawn with other attributes than this version's: {AGAIN}")
        scenes = {split: truth["scenes"][split] for split in SPLITS}
        for scene in scenes.values():
            _check_scenes(**scene)
    except FileNotFoundError:
        raise CondmixError(f"{path} is missing: run the stage fetch") from None
    except (ValueError, LookupError, TypeError) as error:
        raise CondmixError(f"{path} is damaged ({error or type(error).__name__}): {AGAIN}") from error
    return scenes


def _check_scenes(ids: list, values: list, mentions: list) -> None:
    """ValueError or TypeError where a scene has no value or no mention of each attribute."""
    known = [range(len(words)) for words in ATTRIBUTES.values()]
    for scene, numbers, named in zip(ids, values, mentions, strict=True):
        if not all(type(number) is int and number in those for number, those in zip(numbers, known, strict=True)):
            raise ValueError(f"scene {scene} has no value of each attribute")
        wellformed = all(len(flags) == len(known) and set(flags) <= {"0", "1"} for flags in named)
        if not wellformed or len(named) != len(mentions[0]):
            raise ValueError(f"scene {scene} does not say which attributes its captions name")
