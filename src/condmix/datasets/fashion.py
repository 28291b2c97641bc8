"""Fashion Product Images (Kaggle, paramaggarwal): photographs of products, whose attributes people wrote down.

    styles.csv       a line for each product: its name, and its type, base colour, gender and usage among its columns
    images/1163.jpg  the picture of the product with the id 1163, of any size; it is squashed to a square

captions 1 to 4  name two of the four attributes each; the first one names the type, and one to three name all
caption 5        the product's name as people wrote it
class            the type

A value that fewer than `fewest` products have is not known, and neither is what the table leaves out. Colours are in
groups (`_products.py`). Products of which fewer than three attributes are known, or which have no name, are left out.

Held out are `held_out_percent` of the products, by the hash of their ids, and besides all products of
`held_out_pairs` pairs of type and colour. Test pictures have all four attributes; copies of a picture are in one split.
"""

import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from condmix import CondmixError, shown
from condmix.files.atomic import replacing
from condmix.files.pictures import read_file

from . import SPLITS
from ._archives import open_zip, read_member
from ._own_files import PictureFiles, is_hidden, walk
from ._product_wording import NAMES, TOLD, TYPE, Claims, describe
from ._products import Product, frequent_values, read_products
from ._scenes import Dice
from ._splits import chosen, scattered

ARCHIVE = "products.zip"
TABLE, PICTURES, ENDING = "styles.csv", "images/", ".jpg"
SETTINGS = {"fewest", "held_out_percent", "held_out_pairs"}
KNOWN = 3  # attributes that a product has at least
COLOUR = NAMES.index("colour")
FEWEST_OF_PAIR = 4  # products; rarer pairs are not held out, as they would hardly be measured
MOST_HELD_OUT = 0.2  # of a type's or a colour's products, by the pairs that are held out
EPOCH = (1980, 1, 1, 0, 0, 0)  # every entry's date, the earliest that zip can hold: equal files, equal bytes

Pair = tuple[str | None, str | None]  # type and colour


@dataclass(frozen=True)
class Pictured:
    """A product, its picture's name in the archive, and what is the same for two copies of a picture."""

    product: Product
    file: str
    copies: tuple[int, int]  # checksum and size of the file

    @property
    def pair(self) -> Pair:
        return self.product.values[TYPE], self.product.values[COLOUR]

    @property
    def whole(self) -> bool:
        return None not in self.product.values


class Fashion(PictureFiles):
    """Reads products.zip, which the stage fetch packs from `data.folder`, or downloads as any other archive.

    `settings`: {"fewest": products of a value, "held_out_percent": 1 to 99, "held_out_pairs": from 0}. A picture's id
    is its product's. They come in an order as good as random.
    """

    @staticmethod
    def check_settings(settings: dict) -> None:
        if settings.keys() != SETTINGS or settings["fewest"] < 1 or not 1 <= settings["held_out_percent"] <= 99:
            raise CondmixError(
                "data.world takes fewest (products of a value, from 1), held_out_percent (1 to 99) and held_out_pairs "
                f"(of type and colour, from 0), given: {settings}"
            )

    @staticmethod
    def pack(folder: Path, archives: Path) -> None:
        """Writes products.zip from styles.csv and images/; equal files give equal bytes."""
        table, pictures = layout(walk(folder), folder)
        read_products(read_file(folder / table), str(folder / table))  # a damaged table is refused before the work
        names = [table, *sorted(pictures.values(), key=scattered)]
        with replacing(archives / ARCHIVE) as part, zipfile.ZipFile(part, "w") as archive:
            for name in tqdm(names, f"pack {shown(folder.name)}", unit="file", mininterval=0.5):
                archive.writestr(zipfile.ZipInfo(name, EPOCH), read_file(folder / name))

    @staticmethod
    def remarks(folder: Path) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of what `pack` leaves out, and of what has no counterpart."""
        names = sorted(walk(folder))
        table, pictures = layout(names, folder)
        yield from unread(names, table, pictures)
        yield from unmatched(read_products(read_file(folder / table), str(folder / table)), pictures)

    @property
    def path(self) -> Path:
        return self.archives / ARCHIVE

    @cached_property
    def _content(self) -> tuple[dict[int, Product], dict[int, Pictured], list[str]]:
        """Every product of the table, those with a picture, and the names of all files."""
        with open_zip(self.path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            table, pictures = layout(names, self.path)
            products = read_products(read_member(archive, table), f"{self.path}: {table}")
            pictured = {}
            for number in sorted(products.keys() & pictures.keys()):
                file = archive.getinfo(pictures[number])
                pictured[number] = Pictured(products[number], file.filename, (file.CRC, file.file_size))
        self.check_settings(self.settings)
        return products, pictured, names

    @cached_property
    def attributes(self) -> dict[str, list[str]]:  # type: ignore[override]  # here it is known when the table is read
        found = frequent_values((one.product for one in self._content[1].values()), self.settings["fewest"])
        lacking = [name for name, values in found.items() if not values]
        if lacking:
            raise CondmixError(
                f"{self.path}: no {lacking[0]} has {self.settings['fewest']} products with pictures: "
                "lower data.world.fewest"
            )
        return found

    @property
    def class_names(self) -> list[str]:
        return self.attributes["type"]

    @cached_property
    def _usable(self) -> list[Pictured]:
        """The products that are told of, with their known values alone."""
        frequent = list(map(set, self.attributes.values()))
        found = []
        for number, one in self._content[1].items():
            values = [value if value in of else None for value, of in zip(one.product.values, frequent, strict=True)]
            if one.product.name and len(values) - values.count(None) >= KNOWN:
                found.append(Pictured(Product(number, one.product.name, tuple(values)), one.file, one.copies))
        return found

    @cached_property
    def held_out_pairs(self) -> set[Pair]:
        """The pairs of type and colour that no training picture shows."""
        return choose_pairs(self._usable, self.settings["held_out_pairs"])

    @cached_property
    def _splits(self) -> dict[str, list[Pictured]]:
        splits = divide(self._usable, self.settings["held_out_percent"], self.held_out_pairs)
        for split in SPLITS:
            if not splits[split]:
                raise CondmixError(f"{self.path}: no products are left for {split}: it needs more of them")
        return splits

    def ids(self, split: str) -> list[int]:
        return [one.product.id for one in self._splits[split]]

    def files(self, split: str, rows: slice = slice(None)) -> Iterator[tuple[str, bytes]]:
        with open_zip(self.path) as archive:
            for one in self._splits[split][rows]:
                yield one.file, read_member(archive, one.file)

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        for decoder in super().decoders(split, rows):
            yield partial(_squashed, decoder)

    def _class_of(self, picture: Pictured) -> str | None:
        return picture.product.values[TYPE]

    def _full_name(self, name: str) -> str:
        return f"{self.path}: {name}"

    def captions(self, split: str) -> list[list[str]]:
        return [[*self._described(one)[0], one.product.name] for one in self._splits[split]]

    def attribute_values(self, split: str) -> np.ndarray:
        rows = [self._numbers(one.product.values) for one in self._splits[split]]
        return np.array(rows, np.int64)

    def mentions(self, split: str) -> np.ndarray:
        """A name mentions an attribute if it gives it the table's value: not "Black" of what the table has as olive."""
        found = np.zeros((len(self._splits[split]), TOLD + 1, len(NAMES)), bool)
        for row, one in enumerate(self._splits[split]):
            found[row, :TOLD] = self._described(one)[1]
            values = np.array(self._numbers(one.product.values))
            found[row, TOLD] = (values >= 0) & (values == self.claims(one.product.name))
        return found

    def claims(self, caption: str) -> list[int]:
        return self._claims(caption)

    def held_out(self, split: str) -> np.ndarray:
        return np.array([one.pair in self.held_out_pairs for one in self._splits[split]], bool)

    def passed_over(self) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of all that the archive holds and no other method gives."""
        products, pictured, names = self._content
        table, pictures = layout(names, self.path)
        yield from unread(names, table, pictures)
        yield from unmatched(products, pictures)
        usable, used = {one.product.id for one in self._usable}, {n for split in SPLITS for n in self.ids(split)}
        for number, one in pictured.items():
            if number not in usable:
                yield f"product without a name, or with fewer than {KNOWN} frequent attributes", f"{one.file}"
            elif number not in used:
                yield "product held out, of which an attribute is not known", f"{one.file}"

    @cached_property
    def _claims(self) -> Claims:
        return Claims(self.attributes)

    def _described(self, one: Pictured) -> tuple[list[str], list[list[bool]]]:
        return describe(one.product.values, Dice(seed=0, split=0, number=one.product.id))

    def _numbers(self, values: Iterable[str | None]) -> list[int]:
        columns = zip(values, self.attributes.values(), strict=True)
        return [-1 if value is None else known.index(value) for value, known in columns]


def layout(names: Iterable[str], source: Path) -> tuple[str, dict[int, str]]:
    """The table's name, and id -> name of the picture, for those in images/ beside it.

    Kaggle's archives hold all of it twice: the table that lies nearest to the top counts.
    """
    names = [name for name in names if not is_hidden(name)]
    tables = [name for name in names if name.split("/")[-1] == TABLE]
    if not tables:
        raise CondmixError(f"{source} holds no {TABLE}: it should hold that table, and the pictures in {PICTURES}")
    table = min(tables, key=lambda name: (name.count("/"), name))
    beside = table.removesuffix(TABLE) + PICTURES
    stems = {name: name.removeprefix(beside).removesuffix(ENDING) for name in names if name.startswith(beside)}
    pictures = {
        int(stem): name
        for name, stem in sorted(stems.items())
        if name.endswith(ENDING) and stem.isascii() and stem.isdigit() and stem == str(int(stem[:20]))
    }
    if not pictures:
        raise CondmixError(f"{source} holds no pictures: they should be {beside}<id>{ENDING}")
    return table, pictures


def unread(names: Iterable[str], table: str, pictures: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    read = {table, *pictures.values()}
    for name in names:
        if name not in read:
            yield f"file that is neither {table} nor a picture of a product", name


def unmatched(products: Collection[int], pictures: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    for number in sorted(set(products) - pictures.keys()):
        yield "product without a picture", f"id {number}"
    for number in sorted(pictures.keys() - set(products)):
        yield "picture without a product", pictures[number]


def choose_pairs(products: Iterable[Pictured], count: int) -> set[Pair]:
    """Pairs of type and colour to be held out, by the hash of their names: at most `count`.

    Of no type and no colour more than a fifth of the products is held out so.
    """
    pairs = Counter(one.pair for one in products if None not in one.pair)
    totals: Counter[tuple[int, str | None]] = Counter()
    for pair, number in pairs.items():
        totals.update({key: number for key in enumerate(pair)})
    taken: Counter[tuple[int, str | None]] = Counter()
    found: set[Pair] = set()
    for pair in sorted(pairs, key=lambda pair: scattered("/".join(map(str, pair)))):
        number, keys = pairs[pair], list(enumerate(pair))
        fits = all(taken[key] + number <= MOST_HELD_OUT * totals[key] for key in keys)
        if len(found) < count and number >= FEWEST_OF_PAIR and fits:
            found.add(pair)
            taken.update(dict.fromkeys(keys, number))
    return found


def divide(products: Iterable[Pictured], percent: int, held_out: Collection[Pair]) -> dict[str, list[Pictured]]:
    """Train and test, in an order as good as random. What is of neither has a held-out pair and lacks an attribute."""
    groups = defaultdict(list)  # the copies of a picture
    for one in products:
        groups[one.copies].append(one)
    splits: dict[str, list[Pictured]] = {split: [] for split in SPLITS}
    for group in groups.values():
        name = str(min(one.product.id for one in group))
        if any(one.pair in held_out for one in group):
            splits["test"] += [one for one in group if one.whole]
        elif chosen(name, percent) and all(one.whole for one in group):
            splits["test"] += group
        else:
            splits["train"] += group
    for members in splits.values():
        members.sort(key=lambda one: scattered(str(one.product.id)))
    return splits


def _squashed(decoder: Callable[[], np.ndarray]) -> np.ndarray:
    """A picture as a square of its longer side, so that nothing is cut off: (H, W, 3) -> (S, S, 3)."""
    pixels = decoder()
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = max(height, width)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
