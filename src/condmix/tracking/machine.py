"""What the machine does while a run goes on, as MLflow's own monitors see it: `system/...` in a run's metrics."""

from __future__ import annotations

import json
import os
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

MONITORS = ("cpu_monitor.CPUMonitor", "disk_monitor.DiskMonitor", "network_monitor.NetworkMonitor")
GPU = "gpu_monitor.GPUMonitor"


def watch(folder: Path, ended: threading.Event) -> threading.Thread:
    """Append a sample to the journal in `folder` every MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL (10) seconds.

    It is appended by the process that delivers the journal, so that the run itself has nothing to do with it.
    """
    thread = threading.Thread(target=_watch, args=(folder, ended), daemon=True)
    thread.start()
    return thread


def _watch(folder: Path, ended: threading.Event) -> None:
    monitors, step = _monitors(), 0
    try:
        seconds = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or 10)
    except ValueError:  # MLflow's own setting; a value that is none must not end a run
        seconds = 10.0
    while monitors:
        event = {"event": "metrics", "time": int(time.time() * 1000), "values": sample(monitors), "step": step}
        try:
            # Whole lines, as the run's own are. A journal that is just being deleted must not begin anew.
            file = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, (json.dumps(event) + "\n").encode())
            finally:
                os.close(file)
        except OSError:  # delivered, or a full disk, of which the run itself speaks
            pass
        step += 1
        if ended.wait(seconds):
            return


def sample(monitors: list[Any]) -> dict[str, float]:
    """What all monitors measure now."""
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.clear_metrics()
        monitor.collect_metrics()
        values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
    return values


def _monitors() -> list[Any]:
    """Those that work here: psutil may be missing, or a GPU."""
    found = []
    for name in (*MONITORS, GPU):
        module, _, kind = name.partition(".")
        try:
            found.append(getattr(import_module(f"mlflow.system_metrics.metrics.{module}"), kind)())
        except Exception:  # of each its own kind
            continue
    return found
