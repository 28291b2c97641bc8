"""MS-COCO 2017: 118,287 training and 5,000 validation pictures, five human captions each (Lin et al., 2014).

With `data.world: {unlabeled: 1}` its 123,403 unlabeled pictures train as well: they have neither captions nor classes.
"""

from collections.abc import Iterator

from condmix import CondmixError

from . import SPLITS
from ._coco_format import CocoArchive


class Coco(CocoArchive):
    """Reads the official zips; test is val2017. Classes are there where the instances files are."""

    @staticmethod
    def check_settings(settings: dict) -> None:
        if settings.keys() - {"unlabeled"}:
            raise CondmixError(f"data.world takes unlabeled (1 trains on unlabeled2017.zip too), given: {settings}")

    def passed_over(self) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of what is there and not read."""
        for split in SPLITS:
            for where in self.strays(split):
                yield "caption whose picture is not there", where
