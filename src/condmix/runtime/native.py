"""Our C++ operation for CPUs (diffusion/norm_silu.cpp): compiled once on a machine, then loaded by every process.

It needs a C++20 compiler and ten seconds. Where it can't be had, PyTorch's own operations do the same more slowly.

    python -m condmix.runtime.native    # compile it now, and say whether it works
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from filelock import FileLock

SOURCE = Path(__file__).parents[1] / "diffusion" / "norm_silu.cpp"
FLAGS = ["-O3", "-std=c++20", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
INSTRUCTIONS = {  # those that PyTorch itself uses here; not -march=native, as a home folder may serve many machines
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
PREFIX = "norm_silu-"
SECONDS = 300  # after which a compiler is given up


@functools.cache
def available() -> bool:
    """Whether torch.ops.condmix.norm_silu can be called, which is compiled first where this machine has not yet.

    Where it can't, a line on stderr says why. CONDMIX_NATIVE=off asks for PyTorch's own operations.
    """
    if os.environ.get("CONDMIX_NATIVE", "").lower() == "off":
        return False
    try:
        _load()
    except (OSError, subprocess.SubprocessError) as error:
        if int(os.environ.get("RANK", 0)) == 0:
            print(
                f"condmix could not compile its C++ operation for CPUs ({_reason(error)}) and uses PyTorch's "
                "operations instead: training takes about 20 to 40% longer",
                file=sys.stderr,
            )
        return False
    return True


def kernels() -> str:
    """What normalises feature maps on this machine's CPU: a part of what decides the bits of a result.

    Of ours it names the source, PyTorch and the flags by a checksum, and the compiler by its version.
    """
    return f"condmix {_path().stem.removeprefix(PREFIX)}" if available() else "torch"


def _load() -> None:
    path = _path()
    if path.exists():
        try:
            torch.ops.load_library(path)
            return
        except OSError:  # damaged: it is made again
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _compile(path)
    torch.ops.load_library(path)


def _path() -> Path:
    """A file per source, PyTorch, kind of processor and compiler; where there is no compiler, one that another made."""
    parts = [SOURCE.read_bytes(), torch.__version__.encode(), " ".join(_flags()).encode()]
    name = PREFIX + hashlib.sha256(b" ".join(parts)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condmix"
    try:
        return cache / f"{name}-{_version(_compiler())}.so"
    except FileNotFoundError:
        made = sorted(cache.glob(f"{name}-*.so"))
        if not made:
            raise
        return made[0]


def _compiler() -> str:
    found = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        raise FileNotFoundError("no C++ compiler was found, such as Debian's package g++")
    return found


def _version(compiler: str) -> str:
    """What a compiler calls its version, such as "12.2.0" or "Clang_14.0.6", in characters of a file's name."""
    command = [compiler, "-E", "-P", "-x", "c++", "-"]
    macro = subprocess.run(command, input="__VERSION__", check=True, capture_output=True, text=True, timeout=SECONDS)
    return re.sub(r"[^\w.]+", "_", macro.stdout.strip(' "\n'))


def _flags() -> list[str]:
    return FLAGS + INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), [])


def _compile(path: Path) -> None:
    torch_folder = Path(torch.__file__).parent
    part = path.with_suffix(".part")
    command = [_compiler(), *_flags(), f"-I{torch_folder / 'include'}", str(SOURCE), "-o", str(part)]
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-ltorch", "-lc10"]
    subprocess.run([*command, *libraries], check=True, capture_output=True, text=True, timeout=SECONDS)
    os.replace(part, path)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()
        return f"{error.cmd[0]}: {lines[0] if lines else f'exit code {error.returncode}'}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"the compiler took more than {SECONDS} seconds"
    return str(error)


if __name__ == "__main__":
    print(f"CPU kernels: {'condmix, ' + str(_path()) if available() else 'torch'}")
