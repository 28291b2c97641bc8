"""Run the cases: `make malformed`, or PYTHONPATH=src:tests/support python -m malformed --help."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import misbehaving
from malformed import worlds
from malformed.runner import BAD, GOOD, Case, Runner, Verdict, import_everything
from malformed.tables import fetching, files, grids, official, options, own, settings, tracking, vectors

LIGHT = ("own", "tars", "coco", "cifar")
LIGHT_STAGES = {"check", "fetch", "prepare", "captions", "data"}


def main() -> int:
    parser = argparse.ArgumentParser("malformed", description="Malformed inputs, and what condmix answers to each.")
    parser.add_argument("--folder", type=Path, help="where finished worlds are kept  [default: a temporary folder]")
    parser.add_argument("--area", action="append", help="only this area; several")
    parser.add_argument("--match", help="only cases whose name has this text")
    parser.add_argument("--light", action="store_true", help="only the worlds without networks")
    parser.add_argument("--every", type=int, default=1, help="only every n-th case")
    parser.add_argument("--failed", type=Path, help="only the cases that failed, of an earlier --out")
    parser.add_argument("--out", type=Path, help="a JSON line per case; cases that it holds already are not run again")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="name the cases and run none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, misbehaving.serving() as server:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        cases = chosen(light_cases(folder) if given.light else all_cases(folder, server), given)
        if given.list:
            print("\n".join(ascii(case.id) for case in cases))
            return 0
        return report(run(folder, cases, given.jobs, given.out))


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an --out by their cases' ids; a last line that was cut short is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {row["id"]: row for row in map(json.loads, lines)}


def all_cases(folder: Path, server: str) -> list[Case]:
    """Every case, its worlds made."""
    import_everything()
    for name in worlds.WORLDS:
        began = time.monotonic()
        worlds.make(name, folder)
        if time.monotonic() - began > 1:
            print(f"world {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    flags = local_flags()
    worlds.downloads(folder / "downloads", server, flags)
    found = [
        *files.cases(folder),
        *settings.cases(folder),
        *own.cases(),
        *official.cases(),
        *vectors.cases(),
        *fetching.cases(server, flags),
        *options.cases(),
        *grids.cases(),
        *tracking.cases(),
    ]
    return list({case.id: case for case in found}.values())  # the systematic tables meet those by hand


def light_cases(folder: Path) -> list[Case]:
    """Those of pictures and archives, as far as `data check` and `captions`: no network is imported."""
    import_everything(light=True)
    for name in LIGHT:
        worlds.make(name, folder)
    found = [*files.cases(folder, LIGHT), *own.cases(), *official.cases()]
    return [case for case in found if {command[0] for command in case.commands} <= LIGHT_STAGES]


def local_flags() -> tuple[str, ...]:
    """What lets `condmix download` ask a server on loopback."""
    from condmix.cli import main as cli

    names = [name for option in cli.commands["download"].params for name in option.opts]
    return tuple(name for name in names if "private" in name or "local" in name)


def chosen(cases: list[Case], given: argparse.Namespace) -> list[Case]:
    if given.area:
        cases = [case for case in cases if case.area in given.area]
    if given.match:
        cases = [case for case in cases if given.match in case.id]
    if given.failed:
        failed = {name for name, row in read_rows(given.failed).items() if row["verdict"] in BAD}
        cases = [case for case in cases if case.id in failed]
    # by turns of all areas, so that what is done when somebody stops it says something of each
    cases.sort(key=lambda case: hashlib.sha256(case.id.encode(errors="replace")).digest())
    return cases[:: given.every]


def run(folder: Path, cases: list[Case], jobs: int, out: Path | None) -> list[dict[str, Any]]:
    """A row for each case."""
    known = read_rows(out) if out else {}
    rows = {case.id: known[case.id] for case in cases if case.id in known}
    if out is not None:
        out.write_text("".join(f"{json.dumps(row)}\n" for row in known.values()))
    done = Counter(row["verdict"] for row in rows.values())

    def heard(verdict: Verdict) -> None:
        row = rows[verdict.case.id] = verdict.row()
        done[verdict.verdict] += 1
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if sys.stderr.isatty() or len(rows) % 100 == 0:
            counts = ", ".join(f"{name} {count}" for name, count in done.most_common())
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{len(rows)} of {len(cases)}: {counts}", end=end, file=sys.stderr)

    runner = Runner(folder, jobs)
    runner.run([case for case in cases if case.id not in rows], heard)
    for (world, commands), answer in runner.baselines.items():
        if answer.code:
            print(f"undamaged, {world}: {commands[-1]} fails: {answer.err.strip().splitlines()[-1:]}", file=sys.stderr)
    return list(rows.values())


def report(rows: list[dict[str, Any]]) -> int:
    """Print a table of the areas and the rows that failed; 1 if any did."""
    kinds = [*GOOD, *BAD]
    lines = [["area", "cases", *(kind.lower() for kind in kinds), "unnamed"]]
    for area in [*dict.fromkeys(row["area"] for row in rows), ""]:
        own = [row for row in rows if area in ("", row["area"])]
        counts = Counter(row["verdict"] for row in own)
        line = [area or "all", len(own), *(counts[kind] for kind in kinds), sum(row["unnamed"] for row in own)]
        lines.append([str(field) for field in line])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines))
    failed = [row for row in rows if row["verdict"] in BAD]
    for row in failed:
        print(f"{row['verdict']:<9}  {row['id']!r}  {row['seen']!r}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
