"""Whatever ends a command, it tidies up, says so in one line, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

CODE = """
import signal, sys, time
import click
from condmix.cli import main
from condmix.files.atomic import scratch
from pathlib import Path

@main.command()
@click.argument("folder", type=Path)
def wait(folder):
    with scratch(folder / ".work"):
        try:
            print("at work", flush=True)
            time.sleep(60)
        finally:
            {tidy}

main(["wait", sys.argv[1]])
"""


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """A suite that runs in the background, or under nohup, hands on signals that are ignored."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for one, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(one, signal.SIG_DFL)
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def start(folder, tidy="pass", **options):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.format(tidy=tidy), folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    assert process.stdout.readline() == b"at work\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_in_one_line(tmp_path, number, code):
    process = start(tmp_path)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == code
    assert said == b"condmix: interrupted; run the same command again to go on\n"
    assert not list(tmp_path.iterdir())


def test_the_same_signal_again_ends_it_at_once_and_another_does_not(tmp_path):
    tidy = "print('tidies up', flush=True); time.sleep(60)"
    process = start(tmp_path, tidy)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"tidies up\n"
    process.send_signal(signal.SIGTERM)  # as a launcher sends it to processes that a Ctrl-C has reached already
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGINT and not said


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    process = start(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    process.communicate()


GROUP = """
import os, sys, time
from pathlib import Path
from condmix.runtime.interrupts import interruptible
from condmix.runtime.processes import spawn
import torch.distributed

def work(folder):
    rank = os.environ["RANK"]
    torch.distributed.barrier()
    try:
        Path(folder, f"{rank}.pid").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        Path(folder, f"{rank}.tidy").touch()

if __name__ == "__main__":
    import work
    with interruptible() as interruption:
        try:
            spawn(2, work.work, sys.argv[1])
        except KeyboardInterrupt:
            sys.exit(interruption.exit_code)
"""


# The same in a process that has imported all this ...
WARM = """
import functools, os, signal, sys
import torch.multiprocessing
from condmix.runtime import processes

os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
"""
# ... and whose own processes are forks of it, as children of it as those that start anew.
FORKS = """
processes.start_processes = functools.partial(torch.multiprocessing.start_processes, start_method="fork")
"""


@pytest.fixture
def group(tmp_path, forked):
    """Starts a process that starts two; where these write who they are and what they have done."""
    (tmp_path / "work.py").write_text(GROUP)

    def start(code):
        here = f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]"
        streams = tmp_path / "stdout", tmp_path / "stderr"
        return forked.start(exec, f"{here}\n{code}\n{GROUP}", {"__name__": "__main__"}, streams=streams)

    return start


@pytest.mark.parametrize("to", ["parent", "group", "killed"])
def test_processes_of_a_group_end_with_it_and_tidy_up(tmp_path, group, to):
    process = group(WARM + FORKS)
    files = [tmp_path / f"{rank}.pid" for rank in range(2)]
    while not all(file.exists() and file.read_text() for file in files):
        assert process.is_alive()
        time.sleep(0.05)
    if to == "parent":
        process.terminate()
    elif to == "group":
        os.killpg(process.pid, signal.SIGINT)  # what a Ctrl-C does
    else:
        process.kill()
    process.join(60)
    assert process.exitcode == {"parent": 143, "group": 130, "killed": -signal.SIGKILL}[to]
    assert group_ends(process.pid)
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert all((tmp_path / f"{rank}.tidy").exists() for rank in range(2))


def test_an_interrupt_while_processes_start_leaves_none(tmp_path, group):
    """New Pythons, which are importing."""
    process = group(WARM)
    while len(psutil.Process(process.pid).children()) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143 and group_ends(process.pid)
    command = [sys.executable, tmp_path / "work.py", tmp_path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    time.sleep(0.5)  # whatever this meets must end well
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert group_ends(process.pid)


def group_ends(group):
    """Whether no process of the group is left soon: multiprocessing's own helper ends last."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
