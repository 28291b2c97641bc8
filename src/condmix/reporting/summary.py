"""metrics/<variant>.json of all variants -> the table that `make repro` ends with, and where to look further."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from condmix.metrics import Measure
from condmix.reporting.tables import cell, conditioned_on, judge_cells
from condmix.results.rows import Row, agreed, columns, oracles, ranked, read_metrics, through_prior
from condmix.settings.schema import Params
from condmix.tracking.delivery import EXPERIMENT
from condmix.tracking.runs import project_root

WIDTH = 130
TEXT_COLUMNS = 4  # rank, variant, fusion, conditioned on: flush left; the numbers behind them are flush right
CONDITIONED_ON = 3
# The server's job runner and its further workers cost 1.7 GB of memory and serve nothing here.
MLFLOW_UI = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1"


def summary(params: Params) -> str:
    """Ranked rows, oracle rows (marked *), the judge's own accuracy, and the ways to the report and the runs."""
    metrics = read_metrics(params)
    rows, oracle_rows, imagined = ranked(metrics), oracles(metrics), through_prior(metrics)
    shown = columns(rows + oracle_rows)
    lines = [["", "variant", "fusion", "conditioned on", *(measure.heading for measure in shown)]]
    lines += [line(row, shown) for row in rows + imagined + oracle_rows]
    judge = judge_cells(rows, shown)
    if judge:
        lines.append(["", "the judge", "", "real pictures", *(own.text for own in judge)])
    note = []
    if oracle_rows:
        note.append("* oracle, conditioned on the held-out picture's own vector: compare only with each other")
    if imagined:
        note.append(f"through the prior: {agreed([row.facts for row in imagined], 'n', '{:,}')} pictures, not ranked")
    page = params.paths.report / "index.html"
    return "\n".join(
        [
            f"condmix, profile {params.profile}: {conditions(metrics)}",
            "",
            *aligned(lines),
            "",
            *note,
            f"report  {page}" if page.exists() else "report  not written yet: run dvc repro report",
            f"runs    {MLFLOW_UI}",
            *(f"        {address}" for address in runs_addresses()),
            *identity_advice(),
        ]
    )


def runs_addresses() -> list[str]:
    """Where that server shows the table of our runs, which is not its first page; none without the default store."""
    store = project_root() / "mlflow.db"
    if os.environ.get("MLFLOW_TRACKING_URI") or not store.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT experiment_id FROM experiments WHERE name = ?", [EXPERIMENT]).fetchall()
    except sqlite3.Error:
        return []
    return [f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning" for (number,) in rows]


def identity_advice() -> list[str]:
    """What to do before `dvc exp run` where git does not know who commits; DVC's experiments are commits."""
    if not (project_root() / ".git").exists():
        return []
    for key, variable in (("user.name", "GIT_COMMITTER_NAME"), ("user.email", "GIT_COMMITTER_EMAIL")):
        known = subprocess.run(["git", "config", key], capture_output=True).stdout.strip()
        if not known and not os.environ.get(variable):
            return [
                "git     experiments (dvc exp run) are commits, and git does not know your name yet:",
                '        git config --global user.name "Your Name"',
                "        git config --global user.email you@example.com",
            ]
    return []


def conditions(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers were measured with, in words."""
    facts = {key: agreed(metrics, key) for key in ("split", "sampler", "steps", "seed")}
    n, guidance = agreed(metrics, "n", "{:,}"), agreed(metrics, "guidance", "{:g}")
    return "{n} pictures of the split {split}, guidance {guidance}, {sampler} in {steps} steps, seed {seed}".format(
        n=n, guidance=guidance, **facts
    )


def line(row: Row, columns: Sequence[Measure]) -> list[str]:
    """The fields of one row; an oracle row has * for a rank."""
    rank = "*" if row.condition.is_oracle else str(row.rank or "")
    texts = [cell(row, column).text for column in columns]
    return [rank, row.variant, row.facts["fusion"], conditioned_on(row), *texts]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart; what conditioned it is cut where a line would be wider than WIDTH."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = WIDTH - sum(widths) + widths[CONDITIONED_ON] - 2 * (len(widths) - 1)
    widths[CONDITIONED_ON] = max(8, min(widths[CONDITIONED_ON], room))
    return ["  ".join(map(pad, fields, widths, range(len(widths)))).rstrip() for fields in lines]


def pad(text: str, width: int, column: int) -> str:
    """The text in exactly so many characters."""
    cut = text if len(text) <= width else text[: width - 1] + "…"
    return cut.ljust(width) if column < TEXT_COLUMNS else cut.rjust(width)
