"""`condmix new FOLDER`: a folder of pictures -> conf/<name>.yaml, params.yaml, dvc.yaml, and how long a run will take.

Which pictures are of which split, class and caption is asked of the data set `folder` itself, over a copy of the folder
in which pictures are empty: names and texts are all that it reads for that.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import yaml
from PIL import Image
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from condmix import CondmixError, shown
from condmix.bench import ours
from condmix.bench.pictures import STEPS, Batch
from condmix.bench.setting import NetworkSize, Setting
from condmix.bench.training import recipe_of
from condmix.data.captions import collect, count
from condmix.data.requirements import Holds
from condmix.datasets import SPLITS
from condmix.datasets._own_files import walk
from condmix.datasets.folder import Folder, read_names
from condmix.files.atomic import write_text
from condmix.files.pictures import is_picture, read_file
from condmix.runtime.precision import bf16
from condmix.settings.load import Params, load
from condmix.settings.perspectives import parse
from condmix.settings.variants import REFERENCES
from condmix.settings.yamlfile import read_yaml

TEMPLATE = "conf/folder.yaml"
LOOKED_AT = 200  # pictures whose size is read
MANY = 400  # pictures of which 5% are enough to test on
MEASURED = 2  # pictures in the step whose time gives the estimate
LONG = 2 * 24 * 3600  # seconds of a run above which it is worth asking for a GPU
TEMPLATES = ["a photo of a {}."]  # which the profile fills in where nobody wrote captions
# Signs that no line of YAML holds as they are, the \\ that Windows takes for a /, and ${...}, which DVC fills in.
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff\\]|\$\{")


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    holds: dict[str, Holds]  # of each split, with the classes' templates where nobody wrote captions
    held_out_percent: int | None  # None where the folder itself has train/ and test/
    classes: list[str]
    written: bool  # whether there are captions that people wrote
    smallest: int | None  # shorter side in pixels, of those that were looked at; None where none of them opens

    def offers(self, perspective: str) -> bool:
        """Whether pictures of both splits have it: a model is measured on what it was trained on."""
        return all(split.has(parse(perspective)) for split in self.holds.values())

    @property
    def captions(self) -> int:
        """How many captions of one picture both splits have."""
        return min(split.most_captions for split in self.holds.values())

    def lines(self, size: int) -> list[str]:
        """What a person wants to know of it."""
        divided = f", about {self.held_out_percent}% held out by their names" if self.held_out_percent else ""
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        if self.smallest is None:
            sides = "none of those looked at opens as a picture: see condmix data check, after dvc repro fetch"
        else:
            small = f", less than the {size} that the model sees" if self.smallest < size else ""
            sides = f"the smallest of those looked at has {self.smallest} pixels{small}"
        train, test = (self.holds[split] for split in SPLITS)
        one_split = ": pictures of one split alone have them, so they are left out"
        classes = f"{len(self.classes)} classes ({names}){'' if self.offers('class') else one_split}"
        return [
            f"{train.pictures:,} pictures to train on and {test.pictures:,} to test{divided}",
            classes if self.classes else "no classes: there are no sub-folders",
            self._caption_line(train, test) if self.written else "no captions",
            sides,
        ]

    def _caption_line(self, train: Holds, test: Holds) -> str:
        most, shared = max(train.most_captions, test.most_captions), self.captions
        line = f"pictures with captions: {train.captioned + test.captioned:,}, up to {most} each"
        if shared == most:
            return line
        left = f"caption_{shared + 1}" + (f" to caption_{most}" if most > shared + 1 else "")
        return f"{line}; pictures of one split alone have {left}, so condmix leaves that out"


def main(root: Path, folder: Path, name: str | None = None) -> str:
    """Write the three files, and say what was found and how long a run will take."""
    folder = folder.resolve() if ".." in folder.parts else folder.absolute()  # in full, as every message names it
    name, given = name or _plain(folder.name), name or folder.name
    path = root / "conf" / f"{name}.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or _in_yaml(name) != name:
        raise CondmixError(
            f'"{shown(given)}" can\'t name a profile: give --name, which begins with a letter from a to z, goes on '
            "with such letters, digits, _ and -, and is no word of YAML such as true or null"
        )
    if path.exists() or path.with_suffix("").exists():
        raise CondmixError(f"conf/{name} is taken: give another --name")
    if root.resolve().is_relative_to(folder.resolve()):
        raise CondmixError(f"{folder} holds the project itself: give a folder of pictures beside it or in it")
    for needed in (TEMPLATE, "params.yaml", "dvc.yaml"):
        if not (root / needed).is_file():
            raise CondmixError(f"no {needed}: run condmix new in the root of a condmix project")
    found = look(folder)
    place = _place(root, folder)
    pipeline, left = dependency(place, (root / "dvc.yaml").read_text(encoding="utf-8"), folders(root))
    texts = {
        path: profile(found, place, (root / TEMPLATE).read_text(encoding="utf-8")),
        root / "params.yaml": experiment(found, name, (root / "params.yaml").read_text(encoding="utf-8")),
        root / "dvc.yaml": pipeline,
    }
    before = {file: file.read_text(encoding="utf-8") if file.exists() else None for file in texts}
    try:
        for file, text in texts.items():
            write_text(file, text)
        params = load(root)
        duration = estimate(params, seconds_per_picture(params))
    except BaseException:  # a project that does not load, or a command that is interrupted, leaves it as it was
        for file, old in before.items():
            file.unlink(missing_ok=True) if old is None else write_text(file, old)
        raise
    instead = f" (in place of {', '.join(left)}: put that back there with its profile)" if left else ""
    lines = [
        f"{place}:",
        *(f"  {line}" for line in found.lines(params.data.image_size)),
        f"written: conf/{name}.yaml, params.yaml (variants {', '.join(params.variants)}), dvc.yaml{instead}",
        duration,
        "next: dvc repro fetch && condmix data check && dvc repro",
    ]
    return "\n".join(lines)


def look(folder: Path) -> Found:
    """What the folder holds; CondmixError where that is no picture."""
    if not folder.is_dir():
        raise CondmixError(f"{folder} is no folder: give one with pictures")
    with tempfile.TemporaryDirectory() as temporary:
        outline, archives = Path(temporary, "folder"), Path(temporary, "archives")
        pictures = _outline(folder, outline)
        try:
            return _read(folder, pictures, outline, archives)
        except CondmixError as error:  # of the copy
            said = str(error).replace(f"{archives}/pictures.zip", str(folder)).replace(str(outline), str(folder))
            raise CondmixError(said) from error


def _read(folder: Path, pictures: list[Path], outline: Path, archives: Path) -> Found:
    Folder.pack(outline, archives)
    own = (folder / "test").is_dir()
    percent = None if own else 5 if len(pictures) >= MANY else 20
    data = Folder(archives, {} if percent is None else {"held_out_percent": percent})
    try:
        for split in SPLITS:
            data.ids(split)
    except CondmixError as error:
        if own:
            raise
        advice = f"add pictures, or put some into {outline}/test and the others into train"
        raise CondmixError(f"{error}; {advice}") from None
    captions = {split: collect(data, split, TEMPLATES, "folder") for split in SPLITS}
    holds = {split: count(data, captions[split][0], data.labels(split)) for split in SPLITS}
    return Found(
        holds=holds,
        held_out_percent=percent,
        classes=data.class_names,
        written=any(source == "human" and holds[split].captioned for split, (_, source) in captions.items()),
        smallest=min(filter(None, map(_side, islice(pictures, LOOKED_AT))), default=None),
    )


def profile(found: Found, folder: str, template: str) -> str:
    """conf/<name>.yaml, from conf/folder.yaml."""
    text = f"# Pictures in {folder}; conf/reference/settings.yaml says what each setting means.\n"
    text += template[template.index("data:\n") :]
    text = _replaced(text, r"^  folder: .*$", lambda _: f"  folder: {_scalar(folder)}")
    if found.held_out_percent is not None:
        text = _replaced(text, r"^  world: .*$", f"  world: {{held_out_percent: {found.held_out_percent}}}")
    return _replaced(text, r"^  captions: \d+$", f"  captions: {max(1, found.captions)}")


def experiment(found: Found, name: str, text: str) -> str:
    """params.yaml with this profile, and the variants and perspectives that the data can feed."""
    captions = [name for name in ("caption_1", "caption_2") if found.written and found.offers(name)]
    perspectives = captions or [name for name in ("image", "class") if found.offers(name)]
    variants = [name for name, one in REFERENCES.items() if all(map(found.offers, one.perspectives))] + ["experiment"]
    text = _replaced(text, r"^profile: .*$", f"profile: {name}")
    for key, names in (("perspectives", perspectives), ("variants", variants)):
        items = "".join(f"- {item}\n" for item in names)
        text = _replaced(text, rf"^{key}:(?: \[.*\]\n|\n(?:- .*\n)+)", f"{key}:\n{items}")
    return text


def folders(root: Path) -> list[str]:
    """The folders of pictures that profiles name."""
    found = []
    for path in sorted((root / "conf").glob("*.yaml")):
        with suppress(CondmixError):  # that profile's own commands will say it
            data = read_yaml(path).get("data")
            found.append(data.get("folder") if isinstance(data, dict) else None)
    return [folder for folder in found if isinstance(folder, str)]


def dependency(folder: str, text: str, others: Iterable[str] = ()) -> tuple[str, list[str]]:
    """dvc.yaml in which the stage fetch depends on the folder, so that a changed picture makes it run again.

    It depends on none of `others` then, the folders of other profiles, which may be gone; those that were taken out.
    Comments and layout stay as they are.
    """
    layout = YAML()
    layout.preserve_quotes, layout.width = True, 100_000  # of a line, so that none is wrapped
    if re.search(r"^    deps:\n      - ", text, flags=re.MULTILINE):  # DVC's own commands do not indent lists
        layout.indent(mapping=2, sequence=4, offset=2)
    try:
        content = layout.load(text)
        names = content["stages"]["fetch"]["deps"]
        left = [other for other in dict.fromkeys(others) if other != folder and other in names]
    except (YAMLError, KeyError, TypeError) as error:
        raise CondmixError("dvc.yaml has no stage fetch with deps, where condmix new adds the folder") from error
    if folder not in names:
        if left:
            names[names.index(left[0])] = folder
        else:
            names.insert(0, folder)
    for other in left:
        while other in names:
            at = names.index(other)
            comment = names.ca.items.get(at)  # behind the item, with which it would go
            del names[at]
            if comment and at:
                names.ca.items.setdefault(at - 1, comment)
    written = io.StringIO()
    layout.dump(content, written)
    return written.getvalue(), left


def seconds_per_picture(params: Params) -> float:
    """What one picture of training costs on this machine: a step of `condmix bench` with the profile's U-Net."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, size = params.model, params.data.image_size
    network = NetworkSize(
        model.channels, model.multipliers, model.blocks, model.attention, model.dropout, peer_dim=0, image_size=size
    )
    setting = Setting("train", "quick", MEASURED, device, bf16=bf16(params.train.precision), compile=False)
    learner = ours.learner(network, recipe_of(setting), device)
    count = MEASURED if device == "cpu" else params.train.batch_size
    x_0, noise = torch.rand(2, count, 3, size, size, device=device)
    batch = Batch(x_0, torch.arange(count, device=device) % STEPS, noise)
    learner.step(batch)  # the first one allocates
    began = time.perf_counter()
    learner.step(batch).item()  # which waits for a GPU
    return (time.perf_counter() - began) / count


def estimate(params: Params, seconds: float) -> str:
    """How long the variants will take at so many seconds per picture of training.

    A sampler's step under guidance is two passes, a step of training one and its gradients, which cost as much as two.
    """
    evaluate = params.evaluate
    drawn = (evaluate.n + len(evaluate.sweep) * evaluate.sweep_n) * evaluate.steps * 2 / 3
    each, count = seconds * (params.train.images + drawn), len(params.variants)
    device = "GPU" if torch.cuda.is_available() else "CPU"
    advice = "; lower train.images or model.channels in the profile, or take a faster machine" if each > LONG else ""
    rate = f"{1 / seconds:,.1f}" if seconds < 1 else f"{1 / seconds:.2g}"
    who = f"each of the {count} variants" if count > 1 else f"the variant {params.variants[0]}"
    whole = f" ({_duration(each * count)} for all)" if count > 1 else ""
    return (
        f"{who} will take about {_duration(each)}{whole} on this {device}: {params.train.images:,} pictures at "
        f"{rate} per second, then {evaluate.n:,} to measure; CLIP and judge come on top{advice}"
    )


def _outline(folder: Path, outline: Path) -> list[Path]:
    """Copy what `Folder` reads of the folder, with empty pictures; the pictures' true paths."""
    pictures, names = [], sorted(walk(folder))
    for name in read_names(names):
        copy = outline / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if is_picture(name):
            copy.touch()
            pictures.append(folder / name)
        else:
            copy.write_bytes(read_file(folder / name))
    if not pictures:
        shards = any(name.endswith((".tar", ".tar.gz")) for name in names)
        advice = ": for shards set data.dataset to webdataset in conf/folder.yaml, as README says" if shards else ""
        raise CondmixError(f"{folder} holds no pictures{advice}")
    return pictures


def _side(path: Path) -> int | None:
    """The shorter side; None where the file is no picture, which `condmix data check` will say."""
    try:
        with Image.open(path) as picture:
            return min(picture.size)
    except Exception:  # Pillow raises many kinds
        return None


def _place(root: Path, folder: Path) -> str:
    """The folder as settings name it: in full, unless it lies in the project."""
    project = next(filter(folder.is_relative_to, (root.absolute(), root.resolve())), None)
    place = str(folder if project is None else folder.relative_to(project))
    if UNFIT.search(place) or place != place.strip():
        raise CondmixError(f"{place} has characters that may mean something in YAML or to DVC: rename the folder")
    return place


def _plain(name: str) -> str:
    """A folder's name as a profile's: lowercase a to z, digits and _; é as e, however it is encoded."""
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    return re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_")


def _in_yaml(text: str) -> object:
    """What YAML makes of a text that stands in a list without quotes; None where that is no YAML."""
    try:
        [found] = yaml.safe_load(f"- {text}\n")
    except (yaml.YAMLError, ValueError, TypeError):
        return None
    return found


def _scalar(text: str) -> str:
    """A text as YAML holds it: in quotes, without which it may be a number, a date or a sign."""
    return json.dumps(text, ensure_ascii=False)


def _replaced(text: str, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> str:
    def made(found: re.Match[str]) -> str:
        return replacement if isinstance(replacement, str) else replacement(found)

    text, count = re.subn(pattern, made, text, count=1, flags=re.MULTILINE)
    if not count:
        raise CondmixError(
            f"the project's files are not as condmix new knows them (no line like {pattern}): see README"
        )
    return text


def _duration(seconds: float) -> str:
    for unit, length in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
