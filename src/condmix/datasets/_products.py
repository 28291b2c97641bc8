"""styles.csv of Fashion Product Images -> products: their names as people wrote them, and four attributes.

The table has a line for each product, with a comma in the place of every tab:

    id  gender  masterCategory  subCategory  articleType  baseColour  season  year  usage  productDisplayName

Some names hold commas that nothing quotes, so a line may have more fields than there are columns: what is too much
belongs to the name. Values may be missing or "NA".
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from condmix import CondmixError

IDENTIFIER, NAME = "id", "productDisplayName"
COLUMNS = {"type": "articleType", "colour": "baseColour", "gender": "gender", "usage": "usage"}  # attribute -> column
MISSING = {"", "na", "nan"}
IDS = range(1 << 32)

# What a picture of 32x32 pixels or a person's word for it hardly tells apart is one value. Colours are the eleven basic
# terms of English (Berlin and Kay, 1969), beige and two metals; "Multi" is none of them.
GROUPS = {
    "colour": {
        "black": ["black"],
        "white": ["white", "off white"],
        "grey": ["grey", "grey melange", "charcoal"],
        "silver": ["silver", "steel", "metallic"],
        "gold": ["gold", "bronze"],
        "brown": ["brown", "coffee brown", "mushroom brown", "tan", "rust", "copper"],
        "beige": ["beige", "cream", "khaki", "nude", "skin", "taupe"],
        "red": ["red", "maroon", "burgundy"],
        "pink": ["pink", "magenta", "peach", "rose"],
        "orange": ["orange"],
        "yellow": ["yellow", "mustard"],
        "green": ["green", "olive", "sea green", "lime green", "fluorescent green"],
        "blue": ["blue", "navy blue", "turquoise blue", "teal"],
        "purple": ["purple", "lavender", "mauve"],
    },
    "gender": {"men": ["men"], "women": ["women"], "unisex": ["unisex"], "children": ["boys", "girls"]},
    "usage": {"casual": ["casual", "smart casual"]},
}
ALONE = {"type", "usage"}  # attributes of which a value in no group is a value of its own
VALUE = {
    name: {written: value for value, several in groups.items() for written in several}
    for name, groups in GROUPS.items()
}


@dataclass(frozen=True)
class Product:
    """A line of the table; `values` has one of each attribute, None where it is not known."""

    id: int
    name: str  # "" where it has none
    values: tuple[str | None, ...]


def read_products(content: bytes, source: str) -> dict[int, Product]:
    """id -> product, in the order of the table; CondmixError for what is no such table."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CondmixError(f"{source} is not UTF-8 ({error}): save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    products: dict[int, Product] = {}
    try:
        header = [column.strip() for column in next(reader, [])]
        absent = [column for column in (IDENTIFIER, *COLUMNS.values(), NAME) if column not in header]
        twice = [column for column, count in Counter(header).items() if count > 1]
        if twice:
            raise CondmixError(f"{source} has two columns {twice[0]} in its first line: take one out")
        if absent:
            raise CondmixError(f"{source} has no column {absent[0]} in its first line: it is not the data set's table")
        for fields in filter(None, reader):
            product = _product(dict(zip(header, _joined(fields, header), strict=False)), fields, header)
            if product is None:
                raise CondmixError(
                    f"{source}, line {reader.line_num} is damaged: it has {len(fields)} fields of {len(header)}, the "
                    f"first one {fields[0][:40]!r}; mend it or take it out"
                )
            if product.id in products:
                raise CondmixError(f"{source}, line {reader.line_num}: the id {product.id} occurs twice: remove one")
            products[product.id] = product
    except csv.Error as error:
        raise CondmixError(f"{source} is no table behind line {reader.line_num} ({error})") from error
    return products


def _joined(fields: Sequence[str], header: Sequence[str]) -> list[str]:
    """As many fields as columns: what is too much is part of the name, where a comma divided it."""
    at = header.index(NAME)
    end = at + 1 + max(0, len(fields) - len(header))
    return [*fields[:at], ",".join(fields[at:end]), *fields[end:]]


def _product(row: dict[str, str], fields: Sequence[str], header: Sequence[str]) -> Product | None:
    """None for a line that is cut short, or which a quotation mark that nothing closes joins with the next one."""
    number = row[IDENTIFIER].strip()
    whole = len(fields) >= len(header) and not any("\n" in field for field in fields)
    if not whole or not (number.isascii() and number.isdigit()) or len(number) > 20 or int(number) not in IDS:
        return None
    name = " ".join(row[NAME].split())
    values = tuple(_value(attribute, row[column]) for attribute, column in COLUMNS.items())
    return Product(int(number), "" if name.lower() in MISSING else name, values)


def _value(attribute: str, written: str) -> str | None:
    written = " ".join(written.lower().split())
    if written in MISSING:
        return None
    return VALUE.get(attribute, {}).get(written, written if attribute in ALONE else None)


def frequent_values(products: Iterable[Product], fewest: int) -> dict[str, list[str]]:
    """attribute -> its values that at least so many products have, by name: of rarer ones, no judge learns enough."""
    columns = zip(*(product.values for product in products), strict=True)
    counts = [Counter(value for value in column if value is not None) for column in columns]
    counts = counts or [Counter() for _ in COLUMNS]
    return {
        name: sorted(value for value, count in of.items() if count >= fewest)
        for name, of in zip(COLUMNS, counts, strict=True)
    }
