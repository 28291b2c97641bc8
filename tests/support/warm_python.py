"""A `python` that starts at once: forks of one process that has imported what takes seconds, torch and others.

A tiny project's stages cost little but their imports. `warm_python()` starts that process and returns a folder with a
program `python`, to be put on a PATH. What it runs has the folder, the environment and the standard streams of its
caller, gets its signals, and ends when it ends; condmix itself is imported anew, from the caller's PYTHONPATH.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import marshal
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

LIBRARIES = (
    "accelerate", "click", "dvc.cli.parser", "dvc.repo.experiments.executor.local", "dvc.repo.reproduce", "filelock",
    "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "open_clip", "PIL.Image", "pydantic", "scipy.linalg",
    "sklearn.linear_model", "torch.distributed.run", "torch.nn.parallel",
)  # fmt: skip
HEADER = 8  # bytes of a request's length

# In the place of Python: it hands its work to the process below, and lives as long as that takes.
CALLER = """#!{python} -IS
import marshal, os, signal, socket, sys
arguments = sys.argv[2:] if sys.argv[1:2] == ["-u"] else sys.argv[1:]
if arguments[:1] != ["-m"] or arguments[1].partition(".")[0] not in ("condmix", "dvc", "torch"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, _: server.send(bytes([number])))
request = marshal.dumps((arguments[1:], os.getcwd(), dict(os.environ), sys.argv[0]))
socket.send_fds(server, [len(request).to_bytes({header}, "big")], [0, 1, 2])
server.sendall(request)
code = int.from_bytes(server.recv(4) or b"\\1", "big", signed=True)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@functools.cache
def warm_python() -> Path:
    """The folder with the program; that of this Python where a process can't be watched as on Linux."""
    real = Path(sys.executable)
    if not hasattr(os, "pidfd_open"):
        return real.parent
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address, program = folder / "socket", folder / "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC", "MLFLOW", "PYTHON"))}
    server = subprocess.Popen(
        [real, "-P", __file__, address],
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        stdin=subprocess.PIPE,  # at whose end it ends
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout.read(1) == b"!"
    program.write_text(CALLER.format(python=str(real), address=str(address), header=HEADER))
    program.chmod(0o755)
    return folder


def serve(address: str) -> socket.socket:
    """Returns, once for each caller, in a process that is to do its work: the connection to that caller."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or a collection would copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    os.write(1, b"!")
    while True:
        ready, *_ = select.select([listener, 0], [], [])
        if 0 in ready:
            shutil.rmtree(Path(address).parent)
            os._exit(0)
        caller, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return caller
        caller.close()


def accompany(caller: socket.socket, child: int) -> None:
    """Hand the caller's signals to the child, and the child's end to the caller; the caller's own end is a kill."""
    process = os.pidfd_open(child)
    while process not in select.select([caller, process], [], [])[0]:
        number = caller.recv(1)
        os.kill(child, number[0] if number else signal.SIGKILL)
        if not number:
            break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        caller.sendall(code.to_bytes(4, "big", signed=True))


def main() -> None:
    caller = serve(sys.argv[1])
    header, streams, *_ = socket.recv_fds(caller, HEADER, 3)
    length = int.from_bytes(header, "big")
    request = marshal.loads(caller.recv(length, socket.MSG_WAITALL))
    if child := os.fork():
        for stream in (0, 1, 2, *streams):
            os.close(stream)
        accompany(caller, child)
        os._exit(0)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv, folder, environment, sys.executable = request
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    if threads := environment.get("OMP_NUM_THREADS"):
        sys.modules["torch"].set_num_threads(int(threads))
    code = run(sys.argv[0])
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # Python would take all libraries apart, which takes longer than most of what was run


def run(module: str) -> int:
    """Run a module as Python does; returns the exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    main()
