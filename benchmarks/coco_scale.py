"""COCO at its real size: how fast and in how much memory the stages read it, from real pictures and captions repeated.

    PYTHONPATH=src python benchmarks/coco_scale.py coco-subset.tar captions_val2017.json.xz --n 5000

Takes a tar of real pictures (.jpg) and the official captions of val2017 and builds COCO's official archives of them, in
a temporary folder: --n pictures, each brought to the --side that COCO's have. Then every run is a new process with the
stage's own code: `prepare` at 64x64 with each number of threads at n / 2 and n pictures, so that what grows in memory
shows, and the reading of the captions at --captioned pictures.
"""

import io
import json
import lzma
import os
import tarfile
import tempfile
import time
import zipfile
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
from PIL import Image

from condmix.data.captions import collect, write_captions
from condmix.datasets._coco_format import ANNOTATIONS, FOLDERS, file_name, write_annotations
from condmix.datasets.coco import Coco
from condmix.runtime.prefetch import CORES
from condmix.stages.prepare import prepare

SIZE = 64
REAL = {"pictures": 118_287 + 5_000, "captions": 591_753 + 25_014}  # train2017 and val2017


def enlarged(payload: bytes, side: int) -> bytes:
    """A JPEG whose longer side is `side` pixels: decoding then costs what it costs with COCO's own files."""
    with Image.open(io.BytesIO(payload)) as picture:
        scale = side / max(picture.size)
        large = picture.convert("RGB").resize([round(length * scale) for length in picture.size])
    written = io.BytesIO()
    large.save(written, "JPEG", quality=98)
    return written.getvalue()


def build(folder: Path, files: list[bytes], captions: list[list[str]], n: int, captioned: int) -> None:
    """The official archives: `n` pictures in train2017 and one in val2017, captions for `captioned`."""
    folder.mkdir()
    for split, count in (("train", n), ("test", 1)):
        with zipfile.ZipFile(folder / f"{FOLDERS[split]}.zip", "w") as archive:
            for number, payload in enumerate(islice(cycle(files), count)):
                archive.writestr(f"{FOLDERS[split]}/{file_name(number)}", payload)
    said = {"train": dict(enumerate(islice(cycle(captions), captioned))), "test": {0: captions[0]}}
    write_annotations(folder, said, 640, "real captions, repeated")


def prepared(archives: Path, out: Path, threads: int) -> int:
    prepare(Coco(archives, {}), "coco", SIZE, out, threads)
    return np.load(out / "train_ids.npy", mmap_mode="r").size


def captions_read(archives: Path, out: Path) -> int:
    captions, source = collect(Coco(archives, {}), "train", [], "coco")
    write_captions(out / "train.json", captions, source)
    return sum(map(len, captions))


def measured(work, arguments: tuple, to) -> None:  # noqa: ANN001
    """In a new process: send (items, seconds, CPU seconds, peak resident MiB)."""
    start, cpu_start = time.perf_counter(), time.process_time()
    items = work(*arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    to.send((items, seconds, cpu, int(status["VmHWM"].split()[0]) / 1024))


def run(work, *arguments) -> tuple[int, float, float, float]:  # noqa: ANN001
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=measured, args=(work, arguments, theirs))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found


@click.command()
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.argument("captions", type=click.Path(exists=True, path_type=Path))
@click.option("--n", default=5000, show_default=True, help="Pictures.")
@click.option("--captioned", default=118_287, show_default=True, help="Pictures with captions.")
@click.option("--side", default=640, show_default=True, help="Pixels of a picture's longer side.")
def main(pictures: Path, captions: Path, n: int, captioned: int, side: int) -> None:
    with tarfile.open(pictures) as archive:
        members = [member for member in archive if member.name.endswith(".jpg") and "unlabeled" not in member.name]
        files = [enlarged(archive.extractfile(member).read(), side) for member in members[:n]]
    with lzma.open(captions) if captions.suffix == ".xz" else captions.open("rb") as file:
        said: dict[int, list[str]] = {}
        for note in json.load(file)["annotations"]:
            said.setdefault(note["image_id"], []).append(note["caption"])
    print(
        f"{len(files)} real pictures at {side} pixels, {np.mean([*map(len, files)]) / 1000:.0f} kB on average, "
        f"and {sum(map(len, said.values())):,} real captions, repeated; {CORES} cores, "
        f"load before {os.getloadavg()[0]:.2f}\n"
    )
    print(
        "| stage | items | seconds | items / s | items / CPU second | peak memory | all of COCO |\n"
        "|---|---|---|---|---|---|---|"
    )

    def row(stage: str, kind: str, found: tuple[int, float, float, float]) -> None:
        items, seconds, cpu, peak = found
        rate, whole = items / cpu, REAL[kind] / items
        print(
            f"| {stage} | {items:,} {kind} | {seconds:.1f} | {items / seconds:,.0f} | {rate:,.0f} | {peak:,.0f} MiB "
            f"| {whole * seconds / 60:.0f} min, {whole * cpu / 60:.0f} of CPU |",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in (n // 2, n):
            archives = folder / str(count)
            build(archives, files, list(said.values()), count, count)
            for threads in sorted({1, CORES}):
                out = folder / f"{count}-{threads}"
                row(
                    f"prepare, {threads} thread{'s' * (threads > 1)}", "pictures", run(prepared, archives, out, threads)
                )
        archives = folder / "captions"
        build(archives, files, list(said.values()), 1, captioned)
        size = (archives / ANNOTATIONS).stat().st_size / 2**20
        row(f"captions ({size:.0f} MiB zipped)", "captions", run(captions_read, archives, folder / "said"))


if __name__ == "__main__":
    main()
