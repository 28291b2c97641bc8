"""Cases -> verdicts: a process that has imported everything forks one child per case, so a case costs its work alone.

A child copies the finished project, damages the copy, and runs the command in it, with limits on time and memory. What
it printed and left is then compared with what the same command does to an undamaged copy.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from malformed.damage import RAN

SECONDS = 40  # a case that takes longer is tried once more, with PATIENCE times as long
PATIENCE = 4
MEMORY = 4 << 30  # bytes beyond those of the imported libraries
BROKEN = 99  # exit status of a case that could not damage anything: a fault of the table
# What differs between two equal runs, in JSON files.
VOLATILE = {
    "seconds", "images_per_second", "images_per_second_sampling", "captions_per_second", "commit", "date", "mlflow_run",
    "cores", "content_sha256",
}  # fmt: skip
PASSED_OVER = {".git", ".dvc", ".checkpoints", "partial", "mlflow.db", "mlartifacts", "mlruns", "params.ok"}

LIGHT = (
    "condmix.stages.captions",
    "condmix.stages.check",
    "condmix.cli",
    "condmix.data.check",
    "condmix.stages.fetch",
    "condmix.stages.prepare",
)
LIBRARIES = (
    "accelerate", "aiohttp", "dvc.utils.serialize", "open_clip", "pycocotools.coco", "sklearn.cluster", "torch",
    "torch._dynamo", "torchvision", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.blip.modeling_blip", "transformers.models.t5.modeling_t5",
)  # fmt: skip
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "CONDMIX_TRACKING": "off", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1",
    "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
    "TERM": "dumb",
}  # fmt: skip
GOOD = ("SENTENCE", "SAME", "ALLOWED")
BAD = ("RAN", "TRACEBACK", "ACCEPTED", "HANG", "CRASH", "LINES", "RAW", "LATE", "BROKEN")
MOVES = re.compile(r"\x1b\[A|\r")  # tqdm's, on stderr: up a line, and to its beginning


@dataclass(frozen=True)
class Case:
    """One malformed input: `damage` is done to a copy of `world`, then the commands run, one after the other.

    `named` are the words of which one must stand in the sentence. `allowed` is the reason why an answer other than a
    sentence is right too. Commands behind `checks` of them must not refuse what those accepted.
    """

    area: str
    name: str
    world: str
    damage: Callable[[Path], None]
    commands: tuple[tuple[str, ...], ...]
    path: str = ""  # of the file or folder that is damaged, which does not count when results are compared
    named: tuple[str, ...] = ()
    allowed: str = ""
    made_again: bool = False  # the command makes the damaged file, so it must be whole again
    checks: int = 0
    said: bool = False  # if it is accepted, the output must name it
    compared: bool = True  # the results may be those of an undamaged copy; no: the command itself is what is odd
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        command = " ".join(self.commands[-1])
        return f"{self.area}: {self.name} | {self.world}: {command}"


@dataclass(frozen=True)
class Answer:
    """What a child did."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float
    hung: bool
    results: Mapping[str, str]  # path -> hash of the files that are there in the end
    done: int = 0  # commands that ended well
    ran: bool = False  # whether code of the damaged file was run


@dataclass(frozen=True)
class Verdict:
    case: Case
    verdict: str
    seen: str  # the last line of the answer
    unnamed: bool  # a sentence that does not say which file or setting it is about
    seconds: float

    def row(self) -> dict[str, Any]:
        return {
            "id": self.case.id, "area": self.case.area, "verdict": self.verdict, "seen": self.seen,
            "unnamed": self.unnamed, "seconds": round(self.seconds, 2), "allowed": self.case.allowed,
        }  # fmt: skip


class Runner:
    """Runs cases in copies of the worlds in `folder`, `jobs` at a time."""

    def __init__(self, folder: Path, jobs: int = 2):
        self.folder, self.jobs = folder, jobs
        self.baselines: dict[tuple, Answer] = {}  # (world, commands) -> what they do to an undamaged copy

    def run(self, cases: Iterable[Case], report: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        """A verdict for each case, in their order; `report` hears each as it comes."""
        cases = list(cases)
        needed = {(case.world, case.commands): case for case in cases if case.compared}
        whole = [replace(case, name="undamaged", damage=lambda _: None, environment={}) for case in needed.values()]
        self.baselines = dict(zip(needed, self._answers(whole, SECONDS * PATIENCE), strict=True))
        verdicts: dict[int, Verdict] = {}
        slow = []

        def heard(index: int, case: Case, answer: Answer, last: bool) -> None:
            if answer.hung and not last:
                slow.append(index)
                return
            verdicts[index] = self._verdict(case, answer)
            report(verdicts[index])

        self._answers(cases, SECONDS, lambda i, case, answer: heard(i, case, answer, False))
        again = list(slow)
        self._answers(
            [cases[i] for i in again], SECONDS * PATIENCE, lambda i, case, answer: heard(again[i], case, answer, True)
        )
        return [verdicts[i] for i in range(len(cases))]

    def _answers(
        self, cases: list[Case], seconds: float, heard: Callable[[int, Case, Answer], None] = lambda *_: None
    ) -> list[Answer]:
        found: dict[int, Answer] = {}
        running: dict[int, tuple[int, Path, float]] = {}  # process id -> case, folder, when it began
        waiting = list(range(len(cases)))[::-1]
        while waiting or running:
            while waiting and len(running) < self.jobs:
                index = waiting.pop()
                place = self.folder / f"case-{os.getpid()}-{index}"
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                sys.stdout.flush()
                sys.stderr.flush()
                child = os.fork()
                if child == 0:
                    self._child(cases[index], place)
                running[child] = index, place, time.monotonic()
            child, status = os.waitpid(-1, os.WNOHANG)
            hung = False
            if child == 0:
                late = [pid for pid, (_, _, began) in running.items() if time.monotonic() - began > seconds]
                if not late:
                    time.sleep(0.005)
                    continue
                child, hung = late[0], True
                _end(child)
                status = os.waitpid(child, 0)[1]
            if child not in running:
                continue
            index, place, began = running.pop(child)
            _end(child)  # what it may have left running
            answer = _answer(place, os.waitstatus_to_exitcode(status), time.monotonic() - began, hung)
            shutil.rmtree(place, ignore_errors=True)
            found[index] = answer
            heard(index, cases[index], answer)
        return [found[i] for i in range(len(cases))]

    def _child(self, case: Case, place: Path) -> None:
        """In the child: never returns."""
        code = BROKEN
        try:
            os.setsid()
            project = place / "project"
            copy(self.folder / case.world, project, git=case.area in ("grids", "tracking"))
            case.damage(project)
            for number, name in ((0, os.devnull), (1, place / "out"), (2, place / "err")):
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
                os.dup2(os.open(name, flags, 0o644), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.chdir(project)
            os.environ.update(ENVIRONMENT | {"DVC_ROOT": str(project)} | dict(case.environment))
            resource.setrlimit(resource.RLIMIT_AS, (_size() + MEMORY, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
            for number, command in enumerate(case.commands):
                code = condmix(command)
                if code:
                    break
                (place / "done").write_text(str(number + 1))
        except BaseException:
            traceback.print_exc()
            code = BROKEN
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _verdict(self, case: Case, answer: Answer) -> Verdict:
        lines = [line for line in answer.err.replace("\r", "\n").splitlines() if line.strip()]
        last = lines[-1] if lines else ""
        unnamed = False
        if answer.ran:
            verdict = "RAN"
        elif answer.hung:
            verdict = "HANG"
        elif answer.code == BROKEN:
            verdict = "BROKEN"
        elif answer.code < 0:
            verdict, last = "CRASH", f"signal {-answer.code}"
        elif "Traceback (most recent call last)" in answer.err:
            verdict = "TRACEBACK"
            last = next((line for line in reversed(lines) if line[0] not in " \t"), last)
        elif raw := _raw(answer):
            verdict, last = "RAW", raw
        elif answer.code == 0:
            verdict, last = self._accepted(case, answer)
        elif sentence := _sentence(lines):
            last = sentence
            verdict = "LATE" if case.checks and answer.done >= case.checks else "SENTENCE"
            heard = answer.out + answer.err if case.commands[answer.done] == ("data", "check") else sentence
            unnamed = bool(case.named) and not any(word in heard for word in case.named)
        else:
            verdict = "LINES"
        return Verdict(case, verdict, last[:300], unnamed, answer.seconds)

    def _accepted(self, case: Case, answer: Answer) -> tuple[str, str]:
        if case.said:
            heard = any(word in answer.out + answer.err for word in case.named)
            return ("ALLOWED", "said") if heard or case.allowed else ("ACCEPTED", "nothing is said of it")
        if not case.compared:
            return ("ALLOWED" if case.allowed else "ACCEPTED"), answer.out.strip()[-100:]
        differing = self._differing(case, answer, self.baselines[case.world, case.commands])
        if not differing:
            return "SAME", ""
        return "ALLOWED" if case.allowed else "ACCEPTED", f"otherwise: {', '.join(differing[:4])}"

    def _differing(self, case: Case, answer: Answer, whole: Answer) -> list[str]:
        """What the answer has that the undamaged one's has not, or the other way round."""
        found = sorted(
            path
            for path in answer.results.keys() | whole.results.keys()
            if (case.made_again or not f"{path}/".startswith(f"{case.path}/"))
            and answer.results.get(path) != whole.results.get(path)
        )
        if case.commands[-1][0] in ("summary", "experiments", "data") and answer.out != whole.out:
            found.append("stdout")
        return found


def _raw(answer: Answer) -> str:
    """The first line with a character that would act on a terminal, and that is not tqdm's."""
    if rewritten := re.search(r"^(condmix|Error): .*\r.*", answer.err, re.MULTILINE):
        return rewritten[0]
    lines = (answer.out + MOVES.sub("", answer.err)).replace("\t", "").split("\n")
    return next((line for line in lines if not line.isprintable()), "")


def _sentence(lines: list[str]) -> str | None:
    """The one line that condmix, or click, ends in; a progress bar that was on its way may be repeated behind it."""
    rest = [line for line in lines if not re.search(r"\[(\d+:)?\d+:\d+<", line)]
    if rest and rest[-1].startswith(("condmix: ", "Error: ")):
        return rest[-1]
    return None


def condmix(command: tuple[str, ...]) -> int:
    from condmix.cli import main

    try:
        main(list(command), prog_name="condmix", color=True)  # else click takes escape sequences out of what it prints
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def forked(act: Callable[[], int], folder: Path, environment: Mapping[str, str] = {}) -> tuple[int, str]:  # noqa: B006
    """What `act` returns in a child of this process, whose working folder is `folder`, and what it prints."""
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = BROKEN
            try:
                for number in (1, 2):
                    os.dup2(output.fileno(), number)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                os.chdir(folder)
                os.environ.update(ENVIRONMENT | {"DVC_ROOT": str(folder)} | dict(environment))
                code = act() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")


def _size() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _end(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _answer(place: Path, code: int, seconds: float, hung: bool) -> Answer:
    def text(name: str) -> str:
        path = place / name
        return path.read_bytes().decode(errors="replace")[-200_000:] if path.exists() else ""

    done = int(text("done") or 0)
    results = snapshot(place / "project") if code == 0 else {}
    ran = (place / "project" / RAN).exists()
    return Answer(code, text("out").replace(str(place), ""), text("err"), seconds, hung, results, done, ran)


def copy(source: Path, target: Path, git: bool) -> None:
    """The project as one command needs it; documents never, git's and DVC's folders where asked for."""
    left_out = {"docs", "tests", "benchmarks", "docker"} | (set() if git else {".git", ".dvc", "src"})

    def ignore(folder: str, names: list[str]) -> set[str]:
        return left_out & set(names) if Path(folder) == source else set()

    shutil.copytree(source, target, ignore=ignore, symlinks=True)


def snapshot(project: Path) -> dict[str, str]:
    """Path -> hash of what a command left, without what differs between equal runs."""
    found = {}
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if name not in PASSED_OVER]
        for name in files:
            path = Path(folder, name)
            relative = path.relative_to(project).as_posix()
            if name in PASSED_OVER or name.endswith("lock") or path.is_symlink() or not path.is_file():
                continue
            found[relative] = _hash(path)
    return found


def _hash(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        try:
            content = json.dumps(_steady(json.loads(content)), sort_keys=True).encode()
        except (ValueError, RecursionError):
            pass
    return hashlib.sha256(content).hexdigest()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    return value


@functools.cache
def import_everything(light: bool = False) -> None:
    """What commands import, once, before the first fork; no thread may be started by it. `light`: no network."""
    os.environ |= {key: ENVIRONMENT[key] for key in ("OMP_NUM_THREADS", "MLFLOW_DISABLE_TELEMETRY")}
    import condmix

    own = [module.name for module in pkgutil.walk_packages(condmix.__path__, "condmix.")]
    names = LIGHT if light else [*LIBRARIES, *(name for name in own if "__main__" not in name)]
    for name in names:
        importlib.import_module(name)
    if not light:
        importlib.import_module("torch").set_num_threads(1)
    gc.freeze()  # or every child's collection would copy the parent's pages


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
