"""What decides a stage's result: the code that it imports, the settings that it declares, its inputs' contents.

Everything that must notice a change goes through here: the lists of source files in dvc.yaml (`python -m
condmix.pipeline` writes them, `--check` fails where they are stale), the keys of checkpoints, of embedding caches and
of reference features, and the view of the settings that a stage gets.

A stage is the module of its name in stages/. Its code is its import closure, found in the syntax trees: what it imports
directly or not, inside functions too; the plug-ins that it asks for, `plugin("samplers", ...)`; the templates that it
names; and C++ of the same name beside it. A plug-in whose name is not written there is any of its kind.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import functools
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from condmix import CondmixError
from condmix.settings.yamlfile import read_yaml

if TYPE_CHECKING:
    from condmix.settings.schema import Params

PACKAGE = Path(__file__).parent
FILE = "dvc.yaml"
TEMPLATES = "reporting/templates"

# Modules that cannot change a number, and why not. What they alone import does not count either.
CHECKED = "reads or checks the settings; their values count one by one, as each stage declares them"
SETTINGS = {
    "settings/load.py": CHECKED,
    "settings/content.py": "compares a content with the checksum in the settings, which counts",
    "settings/paths.py": "where the files of a profile lie",
    "settings/plugins.py": "finds plug-ins, whose own code counts",
    "settings/schema.py": CHECKED,
    "settings/consistency.py": CHECKED,
    "settings/yamlfile.py": CHECKED,
}
NEUTRAL = SETTINGS | {
    "__init__.py": "the version, and the base class of errors",
    "files/artifacts.py": "decides which files are refused, not what is read from the others",
    "files/atomic.py": "decides how bytes reach the disk, not which bytes",
    "runtime/native.py": "compiles or loads C++ that counts itself; flags and compiler enter the keys of checkpoints",
    "runtime/cores.py": "counts threads; how many there were is part of a checkpoint's key and of every card",
    "runtime/interrupts.py": "ends a process early, and changes nothing that it has written",
    "runtime/messages.py": "takes credentials out of texts that people read",
    "runtime/oserrors.py": "puts errors into words, and decides nothing else",
    "pipeline.py": "computes the keys themselves",
    "data/requirements.py": "stops the pipeline or lets it go on; what it reads is part of no output",
    "tracking/runs.py": "records a run; what it records decides nothing",
    "clip/weights.py": "refuses a model or lets it through as it is",
}
# The same for one stage (patterns of fnmatch).
READERS = "what a reader reads is an input, the prepared data set; keys of what is kept hold `reader_sha256`"
FUSIONS = "the fusion's own code is hashed into variant.json, an input, so that editing another one changes nothing"
PREVIEWS = "draws the previews of a training, which no weight depends on"
NEUTRAL_IN = {
    "encode": {"datasets/[!_]*.py": READERS, "datasets/_[!_]*.py": READERS},
    "generate_captions": {"datasets/[!_]*.py": READERS, "datasets/_[!_]*.py": READERS},
    "embed": {"datasets/[!_]*.py": READERS, "datasets/_[!_]*.py": READERS},
    "train": {
        "fusions/*": FUSIONS,
        "diffusion/guidance.py": PREVIEWS,
        "sampling/sample.py": PREVIEWS,
        "samplers/*": PREVIEWS,
    },
    "evaluate": {"fusions/*": FUSIONS},
}
# Settings that a stage may read beside those that it declares, and why they need not be declared.
UNDECLARED = {
    "train": {"guidance": "names the run in MLflow and draws previews; no weight depends on it"},
}
ALWAYS = ("root", "profile")  # where files lie; every path in dvc.yaml holds the profile's name

Section = TypeVar("Section", bound=BaseModel)


# ---- code ----


def closure(module: str, neutral: Collection[str] = (), package: Path = PACKAGE) -> list[str]:
    """The files, relative to the package, that `module` (such as "fusions/film.py") runs, itself among them.

    Files that match a pattern in `neutral` are left out, and so is what only they import. A folder of plug-ins that
    is needed whole is listed as the folder, with "/" at its end.
    """
    reached: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in reached or (name != module and _matches(name, neutral)):
            continue
        path = package / name
        if path.is_dir():
            files = [f"{name}{file.name}" for file in sorted(path.glob("*.py"))]
            pending += files
            if any(_matches(file, neutral) for file in files):
                continue
        else:
            pending += _imports(path, path.stat().st_mtime_ns, package)
        reached.add(name)
    folders = tuple(name for name in reached if name.endswith("/"))
    return sorted(name for name in reached if name in folders or not name.startswith(folders))


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def stage_code(stage: str, package: Path = PACKAGE) -> list[str]:
    """The closure of a stage, less what cannot change its result."""
    neutral = NEUTRAL if stage != "check" else NEUTRAL.keys() - SETTINGS.keys()
    return closure(f"stages/{stage}.py", [*neutral, *NEUTRAL_IN.get(stage, ())], package)


def code_sha256(files: Iterable[str], package: Path = PACKAGE) -> str:
    """One hash of these files, as `closure` lists them."""
    return digest({name: tree_sha256(package / name) for name in files})


def reader_sha256(dataset: str, package: Path = PACKAGE) -> str:
    """Hash of the code that reads a data set's pictures, for keys of what is made from them at their full size."""
    return code_sha256(closure(f"datasets/{dataset}.py", NEUTRAL, package), package)


@functools.cache
def _imports(path: Path, modified: int, package: Path) -> list[str]:
    """What one file asks for; `modified` is part of the cache's key."""
    if path.parent == package / TEMPLATES:
        return sorted(_templates(path.read_text(encoding="utf-8"), package) - {f"{TEMPLATES}/{path.name}"})
    if path.suffix == ".cpp":
        return []
    here = ["condmix", *path.relative_to(package).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    native = path.with_suffix(".cpp")
    names, texts, files = [], [], {native.relative_to(package).as_posix()} if native.exists() else set()
    for node in _run_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "plugin":
            files |= _plugins(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
            texts.append(node.value)
    files |= _templates("\n".join(texts), package).union(*(_modules(name, package) for name in dict.fromkeys(names)))
    return sorted(files - {path.relative_to(package).as_posix()})


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All of a syntax tree but what stands under `if TYPE_CHECKING`, which is never run."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"):
            yield from _run_nodes(child)


def _plugins(call: ast.Call) -> set[str]:
    """The folder of plug-ins that `plugin(kind, name)` chooses from, or the file where the name is written there."""
    values = [argument.value if isinstance(argument, ast.Constant) else None for argument in call.args]
    if len(values) != 2 or not isinstance(kind := values[0], str):
        return set()
    return {f"{kind}/__init__.py", f"{kind}/{name}.py"} if isinstance(name := values[1], str) else {f"{kind}/"}


def _templates(text: str, package: Path) -> set[str]:
    """The templates whose names occur in a text."""
    files = (path.name for path in (package / TEMPLATES).glob("*"))
    return {f"{TEMPLATES}/{name}" for name in files if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text)}


def _modules(name: str, package: Path) -> set[str]:
    """The files that `import condmix.<...>` runs: the module's, and those of the packages that it lies in.

    A package whose __init__.py holds a docstring alone runs nothing.
    """
    top, *parts = name.split(".")
    files = set()
    for end in range(len(parts) + 1) if top == "condmix" else ():
        path = package.joinpath(*parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file() and not (file.name == "__init__.py" and _only_docstring(file, file.stat().st_mtime_ns)):
                files.add(file.relative_to(package).as_posix())
    return files


@functools.cache
def _only_docstring(path: Path, modified: int) -> bool:
    """Whether a file runs nothing; `modified` is part of the cache's key."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return ast.get_docstring(ast.Module(body, [])) is not None and len(body) == 1


# ---- settings ----


def declared(stage: str, root: Path) -> list[str]:
    """The dotted names of the settings that a stage declares in dvc.yaml; those of params.yaml among them."""
    stages = read(root)["stages"]
    if stage not in stages:
        raise CondmixError(f'{root / FILE} has no stage "{stage}"; found: {", ".join(stages)}')
    names: list[str] = []
    for entry in stages[stage].get("params", []):
        if isinstance(entry, str):
            names.append(entry)
        else:
            names += [key for keys in entry.values() for key in keys or ()]
            if None in entry.values():  # a whole file
                names += [name for name in _sections() if name not in names]
    return names


def view(params: Params, stage: str) -> Params:
    """What of the settings a stage may read: what it declares in dvc.yaml, so that DVC notices every change of it.

    Reading anything else is an error (schema.Undeclared), since DVC would not notice a change of it.
    """
    return _narrowed(params, [*ALWAYS, *declared(stage, params.root), *UNDECLARED.get(stage, ())])


def _narrowed(section: Section, names: Iterable[str]) -> Section:
    parts: dict[str, list[str]] = {}
    whole = set()
    for name in names:
        first, _, rest = name.partition(".")
        if first not in type(section).model_fields:
            near = difflib.get_close_matches(first, type(section).model_fields, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise CondmixError(f'{FILE} declares the setting "{name}", which does not exist{hint}')
        if rest:
            parts.setdefault(first, []).append(rest)
        else:
            whole.add(first)
    values = {name: getattr(section, name) for name in whole}
    values |= {name: _narrowed(getattr(section, name), rest) for name, rest in parts.items() if name not in whole}
    return type(section).model_construct(**values)


def _sections() -> list[str]:
    from condmix.settings.load import Params

    return [name for name in Params.model_fields if name not in ALWAYS]


# ---- keys ----


def key(
    code: Iterable[str],
    params: BaseModel,
    inputs: Iterable[Path],
    environment: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> str:
    """16 hex digits for a result: of code (files as `closure` lists them), settings, inputs' contents, environment.

    `params` is a stage's view, and `without` names the settings in it that cannot change this result.
    """
    settings = params.model_dump(mode="json", exclude={"root"})
    facts = {
        "code": code_sha256(code),
        "settings": {name: value for name, value in flat(settings).items() if name not in without},
        "inputs": [tree_sha256(path) for path in inputs],
        "environment": environment,
    }
    return digest(facts)[:16]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    dotted: dict[str, Any] = {}
    for name, value in settings.items():
        dotted |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
        )
    return dotted


def tree_sha256(path: Path, without: str | None = None) -> str:
    """Hash of a file's content, or of the names and contents of all files below a folder but the one `without`."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    names = {file.relative_to(path).as_posix(): file for file in files}
    return digest({name: tree_sha256(file) for name, file in names.items() if name != without})


def digest(facts: Any) -> str:
    """One hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


# ---- dvc.yaml ----


def read(root: Path) -> dict[str, Any]:
    """dvc.yaml of the project in `root`."""
    path = root / FILE
    content = read_yaml(path)
    if not isinstance(content.get("stages"), dict):
        raise CondmixError(f"{path} has no stages; take it back from git (git checkout {FILE})")
    return content


BEGIN = "      # code, written by `python -m condmix.pipeline`"


def written(text: str) -> str:
    """The text of dvc.yaml with each stage's list of source files as the code has it now.

    A stage's list stands at the end of its `deps`, behind a line that says who writes it.
    """
    lines, out, stage = text.splitlines(), [], ""  # none yet
    for number, line in enumerate(lines):
        if re.fullmatch(r"  \w+:", line):
            stage = line.strip()[:-1]
        if line == BEGIN or (line.startswith("      - src/") and stage):
            continue
        out.append(line)
        following = next(
            (line for line in lines[number + 1 :] if not line.startswith("      - src/") and line != BEGIN), ""
        )
        in_deps = line == "    deps:" or (line.startswith("      - ") and _section(lines, number) == "deps")
        if in_deps and not following.startswith("      - "):
            out += [BEGIN, *(f"      - src/condmix/{name.rstrip('/')}" for name in _listed(stage))]
    return "\n".join(out) + "\n"


def _listed(stage: str) -> list[str]:
    # The fusions' code is no part of the stage pack, but the hash of one of them is part of what it writes.
    return sorted({*stage_code(stage), *(["fusions/"] if stage == "pack" else [])})


def _section(lines: list[str], number: int) -> str:
    """The key of a stage under which line `number` stands."""
    return next(line.strip()[:-1] for line in reversed(lines[:number]) if re.fullmatch(r"    \w+:", line))


def main(arguments: list[str]) -> int:
    """Write the lists into ./dvc.yaml, or with --check say whether they are as they should be."""
    path = Path(FILE)
    before = path.read_text(encoding="utf-8")
    after = written(before)
    if before == after:
        return 0
    if arguments == ["--check"]:
        print(f"{FILE}: its lists of source files are stale: python -m condmix.pipeline", file=sys.stderr)
        return 1
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
