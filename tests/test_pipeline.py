"""dvc.yaml against the code: every stage lists what it imports, and the layers hold."""

import ast
import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "condmix"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Code that a stage runs but need not list: what it does shows in a dependency, or in nothing that the stage writes.
READERS = "src/condmix/datasets/"  # what they read is the prepared data set
FUSIONS = "src/condmix/fusions/"  # their hash is part of variant.json, which the pack stage writes
PREVIEWS = ("src/condmix/guidance.py", "src/condmix/sample.py", "src/condmix/samplers/")  # only MLflow gets them
ENCODERS = (PACKAGE / "encoders").glob("*.py")
NOT_CLIP = tuple(str(file.relative_to(ROOT)) for file in ENCODERS if not file.stem.startswith(("clip_", "__")))
KNOWN_OTHERWISE = {
    "encode": (READERS, *NOT_CLIP),  # which opens CLIP's two towers by name
    "generate_captions": (READERS, *NOT_CLIP),
    "embed": (READERS,),
    "train": (FUSIONS, *PREVIEWS),
    "evaluate": (FUSIONS,),
}
PLUGINS = {"captioners", "fusions", "encoders", "datasets", "samplers"}


def module_file(name: str) -> Path | None:
    """The file of condmix.<name>, or None where that is an attribute of a module."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def imports(file: Path) -> set[Path]:
    """Our own files that a file imports anywhere in it, functions included, and the plug-ins it asks for by kind."""
    found: set[Path] = set()
    package = ["condmix", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "plugin":
            kind = node.args[0]
            if isinstance(kind, ast.Constant):
                found |= set((PACKAGE / kind.value).glob("*.py"))
        found |= {module_file(name) for name in names if name.split(".")[0] == "condmix"} - {None}
    return found - {file, PACKAGE / "__init__.py"}


def closure(file: Path, apart: frozenset[Path] = frozenset()) -> set[Path]:
    """Everything of ours that a file imports, directly or not, but for what only files that are set apart import."""
    seen: set[Path] = set()
    todo = [file]
    while todo:
        importer = todo.pop()
        for one in imports(importer) - seen if importer not in apart else ():
            seen.add(one)
            todo.append(one)
    return seen


def module_of(stage: str) -> Path:
    return PACKAGE / ("config.py" if stage == "check" else f"{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(stage):
    module = module_of(stage)
    # The settings reach a stage as params, which DVC tracks key by key; tracking.py only records; files.py decides
    # how bytes reach the disk and not which.
    exempt = {PACKAGE / name for name in ("config.py", "tracking.py", "files.py")}
    exempt -= {module}
    needed = {str(file.relative_to(ROOT)) for file in (closure(module, frozenset(exempt)) | {module}) - exempt}
    listed = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    missing = sorted(file for file in needed if not any(file == dep or file.startswith(f"{dep}/") for dep in listed))
    missing = [file for file in missing if not file.startswith(KNOWN_OTHERWISE.get(stage, ()))]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_no_code_that_it_does_not_run(stage):
    module = module_of(stage)
    run = {str(file.relative_to(ROOT)) for file in closure(module) | {module}}
    if stage == "pack":
        run |= {"src/condmix/fusions/__init__.py"}  # hashed into variant.json
    for dep in STAGES[stage]["deps"]:
        if dep.startswith("src/") and not dep.startswith("src/condmix/templates/"):  # not Python
            assert any(file == dep or file.startswith(f"{dep}/") for file in run), dep


def test_stages_meet_through_files():
    stages = {module_of(stage) for stage in STAGES} - {PACKAGE / "config.py"}
    for stage in stages:
        assert not imports(stage) & stages, f"{stage.name} imports another stage"


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_layers(file):
    ours = {str(one.relative_to(PACKAGE)) for one in imports(file)} - {"files.py"}  # which knows nothing of condmix
    name = str(file.relative_to(PACKAGE))
    kind = name.split("/")[0]
    if name in ("config.py", "files.py", "perspectives.py", "tracking.py"):
        assert ours <= ({"perspectives.py"} if name == "config.py" else set())
    elif kind in PLUGINS and not file.stem.startswith("_"):
        assert all(fnmatch.fnmatch(one, f"{kind}/_*.py") for one in ours), ours
    elif name in ("unet.py", "diffusion.py", "guidance.py") or kind == "samplers":
        assert ours <= {"diffusion.py", "samplers/__init__.py"}, ours
