"""20,000 URLs of a server that misbehaves, downloaded by a process that is killed twice: what is lost, doubled, used.

    python benchmarks/download.py --n 20000 --kills 2

The server (tests/support/misbehaving.py) is on loopback, so the rate says what our side costs and nothing about the
web. Peak
memory is the largest resident set seen of any of the processes, polled from /proc; Linux only.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from misbehaving import asked, serving  # noqa: E402  # lies beside the tests

# Shares in per cent, near those of an old list of URLs: a third is dead. The few that keep a connection until a
# time-out or send megabytes would else be all that is measured.
BEHAVIOURS = {
    "ok": 45,
    "png": 6,
    "slow": 5,
    "moved": 5,
    "404": 20,
    "410": 4,
    "403": 3,
    "page": 4,
    "503-once": 1,
    "busy-once": 1,
    "reset-once": 1,
    "truncated-once": 1,
    "liar": 1,
    "half": 0.5,
    "500": 0.5,
    "loop": 0.5,
    "elsewhere": 0.3,
    "noai": 0.3,
    "pixel": 0.3,
    "bomb": 0.3,
    "huge": 0.2,
    "endless": 0.05,
    "drip": 0.02,
    "silent": 0.03,
}
PICTURES = {"ok", "png", "slow", "moved", "503-once", "busy-once", "reset-once", "truncated-once"}


def keys_of(shards: list[Path]) -> list[int]:
    keys = []
    for path in shards:
        with tarfile.open(path) as tar:
            keys += [int(Path(name).stem) for name in tar.getnames() if name.endswith(".jpg")]
    return keys


def peak_mib(process: subprocess.Popen) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)  # absent once it has ended
    return int(found[1]) / 1024 if found else 0.0


@click.command()
@click.option("--n", default=20_000, show_default=True, help="URLs.")
@click.option("--kills", default=2, show_default=True, help="SIGKILLs, each when a further share of shards is there.")
@click.option("--connections", default=64, show_default=True)
@click.option("--per-shard", default=1000, show_default=True)
@click.option("--size", default=64, show_default=True, help="Pixels of the shorter side; the server's have 60.")
def main(n: int, kills: int, connections: int, per_shard: int, size: int) -> None:
    dice = random.Random(0)
    kinds = dice.choices(list(BEHAVIOURS), BEHAVIOURS.values(), k=n)
    pictures = {i for i, kind in enumerate(kinds) if kind in PICTURES}
    with tempfile.TemporaryDirectory() as folder, serving() as address:
        source, out = Path(folder) / "list.tsv", Path(folder) / "out"
        source.write_text("".join(f"caption {i}\t{address}/{kind}/{i}\n" for i, kind in enumerate(kinds)))
        command = [sys.executable, "-m", "condmix", "download", str(source), str(out), "--size", str(size)]
        command += ["--connections", str(connections), "--per-shard", str(per_shard)]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        peak, seconds, lasting = 0.0, 0.0, {}
        for run in range(kills + 1):
            began = time.perf_counter()
            killed_at = len(pictures) // per_shard * (run + 1) // (kills + 1)
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            while process.poll() is None:
                peak = max(peak, peak_mib(process))
                if run < kills and len(list(out.glob("*.tar"))) >= killed_at:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                time.sleep(0.05)
            seconds += time.perf_counter() - began
            shards, counts = sorted(out.glob("*.tar")), asked(address)
            lasting |= {i: counts[f"/{kinds[i]}/{i}"] for i in keys_of(shards) if i not in lasting}
            print(f"run {run + 1}: exit status {process.returncode}, {len(shards)} shards, {len(lasting)} pictures")
        found, counts = keys_of(shards), asked(address)
        manifest = json.loads((out / "manifest.json").read_text())
    again = sum(counts[f"/{kinds[i]}/{i}"] > times for i, times in lasting.items())
    ended = Counter(manifest["errors"])
    print(
        f"\n{n} URLs, {connections} connections, {kills} kills, {seconds:.0f} s in all, "
        f"load after {os.getloadavg()[0]:.1f}\n"
        f"pictures: {len(found)} of {len(pictures)} that can be had; missing {len(pictures - set(found))}, "
        f"in excess {len(set(found) - pictures)}, twice {len(found) - len(set(found))}\n"
        f"accounted for: {len(found) + sum(ended.values())} of {n} URLs; asked again though in a shard: {again}\n"
        f"requests: {sum(counts.values())}; peak memory of the downloader: {peak:.0f} MiB\n"
        f"failures: {dict(ended)}"
    )


if __name__ == "__main__":
    main()
