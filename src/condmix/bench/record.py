"""Measurements to a JSON file that holds its conditions, and to a table in Markdown."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from condmix.bench import gemm
from condmix.bench.setting import BENCHMARKS, Setting
from condmix.bench.timing import ratio, spread
from condmix.tracking.runs import cpu_model, environment

PACKAGES = ("accelerate", "diffusers", "denoising-diffusion-pytorch", "ema-pytorch", "numpy")


def conditions(setting: Setting) -> dict[str, Any]:
    """What the figures hold for: the setting, software and hardware, threads, and how busy the machine was before."""
    return {
        **asdict(setting),
        "network": asdict(setting.network),
        **environment("bf16" if setting.bf16 else "fp32"),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        "load_before": round(os.getloadavg()[0], 2),
    }


def device_name(setting: Setting) -> str:
    """The GPU's or the CPU's name."""
    return torch.cuda.get_device_name() if setting.device == "cuda" else cpu_model()


def default_path(setting: Setting) -> Path:
    """benchmarks/results/<device>-<what>-<size>-<batch size>.json"""
    device = re.sub(r"[^a-z0-9]+", "-", device_name(setting).lower()).strip("-")
    return Path("benchmarks", "results", f"{device}-{setting.what}-{setting.size}-{setting.batch_size}.json")


@dataclass(frozen=True)
class Measured:
    """What was measured of one contender: seconds of its steps, and what `probe` found out, if it was asked."""

    dtype: str
    seconds: Sequence[float]
    probe: Mapping[str, Any] = field(default_factory=dict)
    held_out_loss: float | None = None


def evaluate(
    setting: Setting, baseline: str, contenders: Mapping[str, Measured], products: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """The record's `gemm` and `contenders` from what was measured of them, and from seconds of matrix products."""
    rates = {kind: gemm.flops(setting.device) / median(taken) for kind, taken in products.items()}
    rows = {}
    for name, contender in contenders.items():
        middle = median(contender.seconds)
        row = {
            "dtype": contender.dtype,
            "seconds": [round(second, 6) for second in contender.seconds],
            "median_seconds": middle,
            "spread": spread(contender.seconds),
            "pictures_per_second": setting.batch_size / middle,
            "times_baseline": ratio(contender.seconds, contenders[baseline].seconds)
            if baseline in contenders
            else None,
            **contender.probe,
        }
        if "flop_per_picture" in row:
            row["flop_per_second"] = row["flop_per_picture"] * row["pictures_per_second"]
            row["share_of_gemm"] = row["flop_per_second"] / rates[gemm.arithmetic(setting.device, contender.dtype)]
        if contender.held_out_loss is not None:
            row["held_out_loss"] = contender.held_out_loss
        rows[name] = row
    return {
        "gemm": {kind: {"flop_per_second": rates[kind], "spread": spread(products[kind])} for kind in rates},
        "contenders": rows,
    }


def table(record: Mapping[str, Any], baseline: str) -> str:
    """The record as a line of its conditions and a Markdown table."""
    c = record["conditions"]
    rates = ", ".join(f"{kind} {_rate(rate['flop_per_second'])}" for kind, rate in record["gemm"].items())
    seen = f" after {record['pictures_seen']:,} pictures" if record.get("pictures_seen") else ""
    conditions = (
        f"{BENCHMARKS[c['what']]}; batch {c['batch_size']}, size {c['size']}; {record['device']}, threads: "
        f"{c['threads']}, torch {c['torch']}; {record['rounds']} rounds after {record['warmup']} of warm-up; "
        f"matrix products: {rates}; {c['date']}, commit {c['commit']}"
    )
    columns: list[tuple[str, str, Callable[[Any], str]]] = [  # heading, key of the row, how it is shown
        ("dtype", "dtype", str),
        ("parameters", "parameters", lambda count: f"{count / 1e6:.2f} M"),
        ("GFLOP / picture", "flop_per_picture", lambda count: f"{count / 1e9:.2f}"),
        ("seconds", "median_seconds", lambda taken: f"{taken:.4g}"),
        ("spread", "spread", lambda share: f"{share:.1%}"),
        ("pictures / s", "pictures_per_second", lambda rate: f"{rate:.4g}"),
        (f"time / {baseline}", "times_baseline", lambda times: f"{times:.3f}"),
        ("achieved", "flop_per_second", _rate),
        ("of GEMM", "share_of_gemm", lambda share: f"{share:.0%}"),
        ("peak memory", "peak_mib", lambda mib: f"{mib:,} MiB"),
        (f"held-out loss{seen}", "held_out_loss", lambda loss: f"{loss:.4f}"),
    ]
    rows = record["contenders"]
    columns = [column for column in columns if any(row.get(column[1]) is not None for row in rows.values())]
    lines = [["contender", *(heading for heading, _, _ in columns)]]
    for name, row in rows.items():
        lines.append([name, *(show(row[key]) if row.get(key) is not None else "" for _, key, show in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([conditions, "", f"| {cells[0]} |", f"|{rule}|", *(f"| {line} |" for line in cells[1:])])


def _rate(per_second: float) -> str:
    return f"{per_second / 1e12:.3g} TFLOP/s" if per_second >= 1e12 else f"{per_second / 1e9:.3g} GFLOP/s"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
