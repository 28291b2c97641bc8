"""The command line: every stage of dvc.yaml, and the tools around them.

Imports are made inside the commands, so that `condmix --help` answers at once.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from condmix import CondmixError, __version__, shown
from condmix.files.atomic import exclusive
from condmix.runtime.interrupts import interruptible
from condmix.runtime.oserrors import sentence
from condmix.settings.plugins import plugins

if TYPE_CHECKING:
    from condmix.settings.schema import Params

STAGES = {
    "fetch": "Download and verify the profile's archives, or draw the demo world.",
    "prepare": "Turn the archives into arrays at the training resolution.",
    "captions": "Collect the human captions, or fill in the class templates.",
    "encode": "Train the small CLIP, or load a pretrained one.",
    "generate_captions": "Have a captioner describe the pictures, if the profile names one.",
    "judge": "Train the network that judges pictures, on real ones.",
    "embed": "Encode every perspective into the embedding cache.",
    "prior": "Train the prior from text vectors to picture vectors, if the profile has one.",
    "report": "Write metrics/report/index.html.",
}
VARIANT_STAGES = {
    "pack": "Select the perspectives that a variant sees.",
    "train": "Train a variant, or resume its training.",
    "evaluate": "Sample from a variant and measure the pictures.",
}


SECTIONS = {  # of `condmix --help`
    "Draw pictures": ("generate", "play", "export"),
    "Look at data and results": ("summary", "data", "download", "hash"),
    "Experiment": ("new", "experiments", "tracking", "bench", "repair"),
    "Stages of the pipeline, which `dvc repro` runs": (
        "check", "fetch", "prepare", "captions", "encode", "generate_captions", "judge", "embed", "prior", "pack",
        "train", "evaluate", "report",
    ),
}  # fmt: skip


class FiniteNumber(click.FloatRange):
    """A number in a range; NaN, which passes click's comparisons, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        number = super().convert(value, param, context)
        return number if math.isfinite(number) else self.fail(f"{value} is not a finite number", param, context)


@contextmanager
def _quoting() -> Iterator[None]:
    """Around click, whose errors quote arguments as they are."""
    try:
        yield
    except click.ClickException as error:
        error.message = shown(error.message)  # type: ignore[misc]  # click says Final, and means its own code
        raise


class Cli(click.Group):
    """Ends every mistake in one sentence and a non-zero status; `--debug` lets the traceback through."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in groups; those of no group last."""
        placed = {name for names in SECTIONS.values() for name in names}
        others = [name for name in self.list_commands(context) if name not in placed]
        for title, names in {**SECTIONS, "Other": others}.items():
            known = [(name, command) for name in names if (command := self.get_command(context, name))]
            if known:
                with formatter.section(title):
                    formatter.write_dl([(name, command.get_short_help_str(limit=200)) for name, command in known])

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _quoting():
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> object:
        with interruptible() as interruption:
            try:
                return self._invoke(context)
            except KeyboardInterrupt:
                if os.environ.get("RANK", "0") == "0":  # once for all processes of a launcher
                    click.echo("condmix: interrupted; run the same command again to go on", err=True)
                sys.exit(interruption.exit_code)

    def _invoke(self, context: click.Context) -> object:
        try:
            with _quoting():
                result = super().invoke(context)
            sys.stdout.flush()  # here, where a reader that has gone (condmix ... | head) is still handled
            return result
        except BrokenPipeError:
            raise  # click ends the command without a word
        except Exception as error:
            said = str(error) if isinstance(error, CondmixError) else sentence(error)
            if said is None or context.params.get("debug"):
                raise
            say(f"condmix: {shown(said)}", err=True)
            sys.exit(1)


def say(text: str, err: bool = False) -> None:
    """Prints lines, in which names of files and texts of others are `shown`."""
    click.echo("\n".join(map(shown, text.split("\n"))), err=err)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train diffusion models that see a picture from several perspectives, and find out whether it helps."""
    if not (debug or sys.warnoptions):  # what other libraries have to say to their developers
        warnings.simplefilter("ignore")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that are started


@main.command()
@click.option("--fill", is_flag=True, help="First add the settings that the profile lacks.")
def check(fill: bool) -> None:
    """Check params.yaml, the profile's settings and what they name."""
    from condmix.stages.check import main as run

    if fill:
        from condmix.settings.fill import fill as add

        for line in add(Path(".")):
            say(f"added {line}")
    params = _params()
    with _alone("check"):
        run(params)


@main.command("hash")
@click.argument("path", type=click.Path(path_type=Path))
def hash_(path: Path) -> None:
    """Print a file's or folder's sha256, by which the settings name it."""
    from condmix.settings.content import content_sha256, located

    say(content_sha256(located(str(path))))


def _add_stage(name: str, text: str) -> None:
    @main.command(name, help=text, short_help=text)
    def stage() -> None:
        if os.environ.get("RANK", "0") != "0":
            return  # one process does this stage's work, however many a launcher started
        with _alone(name), _timed(name):
            importlib.import_module(f"condmix.stages.{name}").main(_view(name))


def _add_variant_stage(name: str, text: str) -> None:
    @main.command(name, help=text, short_help=text)
    @click.argument("variant")
    def stage(variant: str) -> None:
        variants = _params().variants
        if variant not in variants:
            raise CondmixError(f'variant "{variant}" is not among the variants of params.yaml: {", ".join(variants)}')
        with _alone(f"{name}@{variant}"), _timed(f"{name}@{variant}"):
            importlib.import_module(f"condmix.stages.{name}").main(_view(name), variant)


def _timed(stage: str) -> AbstractContextManager[None]:
    """Says which stage begins; of a launcher's processes, one does."""
    from condmix.reporting.progress import timed

    if os.environ.get("RANK", "0") != "0":
        return nullcontext()
    return timed(_params(), stage, lambda text: say(text, err=True))


def _alone(stage: str) -> AbstractContextManager[None]:
    """A stage's outputs have one writer at a time: a second process waits. Of a launcher's processes, one locks."""
    if os.environ.get("RANK", "0") != "0":
        return nullcontext()
    return exclusive(Path(".checkpoints", "locks", stage), f"the stage {stage}")


for _name, _text in STAGES.items():
    _add_stage(_name, _text)
for _name, _text in VARIANT_STAGES.items():
    _add_variant_stage(_name, _text)


@main.command()
def repair() -> None:
    """Mend what a killed DVC leaves: a dvc.lock, or a list of running processes, that it can't read any more."""
    from condmix.files.repair import repair as mend

    for line in mend(Path.cwd()):
        say(f"condmix: {line}", err=True)


@main.command()
def summary() -> None:
    """Print the variants' metrics, and where the report and the runs are."""
    from condmix.reporting.summary import summary as table

    say(table(_params()))


@main.command()
@click.option("--variant", default="experiment", show_default=True, help="Which trained model draws.")
@click.option("--demo", is_flag=True, help="Draw with the small model of the demo world that comes with condmix.")
@click.option(
    "--caption",
    "captions",
    multiple=True,
    help="A caption. Repeat it for caption_2 and so on, or for a perspective that joins or averages captions.",
)
@click.option("--image", type=click.Path(path_type=Path), help="A picture file, seen through CLIP.")
@click.option("--prompt", help="Words in the image's place: their CLIP text vector instead of a picture's.")
@click.option("--prior", is_flag=True, help="Turn the prompt's text vector into picture vectors, by the trained prior.")
@click.option("--class", "class_name", help="A class name.")
@click.option("--without", multiple=True, metavar="NAME", help="A perspective to leave out of what was given.")
@click.option("--to", multiple=True, help="Where a caption ends, in --n pictures of one seed; several, like --caption.")
@click.option("--negative", "negatives", multiple=True, help="A caption to steer away from; several, like --caption.")
@click.option("--guidance", type=float, help="Guidance scale s; s = 1 is the plain conditional model.")
@click.option("--composed", is_flag=True, help="Guide by each source alone, with s shared among those given.")
@click.option("--weight", "weights", multiple=True, help="NAME=NUMBER: a source's own scale; implies --composed.")
@click.option("--interval", type=float, nargs=2, help="Guide at these shares of the diffusion time; 1 is pure noise.")
@click.option(
    "--threshold", type=FiniteNumber(0, 1), help="Dynamic thresholding at this quantile, such as 0.995; 0 only clips."
)
@click.option("--sampler", help=f"{', '.join(plugins('samplers'))}.")
@click.option("--spacing", help="Of the times that the sampler visits: uniform, or karras, for ten steps or more.")
@click.option("--steps", type=click.IntRange(1), help="Sampler steps, over the whole diffusion time.")
@click.option("--start", type=click.Path(path_type=Path), help="A picture file to draw over (SDEdit).")
@click.option("--strength", type=float, help="How much of --start is redrawn, up to 1, all of it.  [default: 0.6]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Picture i uses seed + i.")
@click.option("--n", type=click.IntRange(1), default=16, show_default=True, help="How many pictures.")
@click.option("--scale", type=click.IntRange(1), default=8, show_default=True, help="Enlargement of each pixel.")
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    help="A PNG that condmix drew, to draw again. An option beside it replaces what the PNG holds of it, and --image "
    "and --prompt each other; --without leaves a source out.",
)
@click.option(
    "--out", default="grid.png", show_default=True, help="A sheet, or with / at its end a folder of single pictures."
)
@click.pass_context
def generate(context: click.Context, /, like: Path | None, demo: bool, **options: Any) -> None:
    """Make pictures from any subset of a trained model's perspectives."""
    from condmix.sampling.generate import Output, weights_of
    from condmix.sampling.generate import main as run

    options["weights"] = weights_of(options["weights"])
    if like is not None:  # only what was typed replaces what the picture was made with
        options = {k: v for k, v in options.items() if _was_typed(context, k) or k == "out"}
    variant, out, scale = options.pop("variant", None), options.pop("out"), options.pop("scale", None)
    request: Any = options  # what click knows, `Request` checks
    if demo and variant is not None and _was_typed(context, "variant"):
        raise CondmixError("--demo draws with the model in the package: leave out --variant")
    files = run(request, Output("demo" if demo else variant, out, scale), like)
    say(f"{len(files)} pictures in {out}" if len(files) > 1 else str(files[0]))


@main.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=7860, show_default=True)
def play(port: int) -> None:
    """Open a page on this machine to type captions and see pictures; without a trained model, of the demo."""
    from condmix.play.page import main as run

    run(port, say)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="Of the profile, conf/<name>.yaml.  [default: the folder's name]")
def new(folder: Path, name: str | None) -> None:
    """Write the settings for a folder of pictures, and say what it holds and how long training will take."""
    from condmix.new import main as run

    say(run(Path.cwd(), folder, name))


@main.command()
@click.argument("variant")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--small", is_flag=True, help="Half precision, and of CLIP only the words of the captions.")
@click.option("--replace", is_flag=True, help="Over an earlier export, its README.md included.")
def export(variant: str, folder: Path, small: bool, replace: bool) -> None:
    """Write a trained model as a folder for the Hugging Face hub, which condmix.load reads."""
    from condmix.sharing.export import main as run

    size = run(_params(), variant, folder, small, replace)
    say(f"{folder}: {size / 1e6:,.1f} MB; read its README.md, and fill in what it asks, before you publish it")


def _was_typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


@main.command()
@click.argument("source", metavar="LIST.TSV", type=click.Path(path_type=Path))
@click.argument("folder", metavar="OUT-FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--connections", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Pictures at a time."
)
@click.option(
    "--size", type=click.IntRange(32, 65_535), default=256, show_default=True, help="Pixels of the shorter side."
)
@click.option(
    "--per-shard", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Pictures in a shard."
)
@click.option(
    "--min-success", type=FiniteNumber(0, 1), default=0.3, show_default=True, help="Fail under this share of URLs."
)
@click.option("--retry", is_flag=True, help="Request temporary failures again; never a 404.")
@click.option("--allow-private", is_flag=True, help="Connect to addresses of this machine and its network too.")
def download(source: Path, folder: Path, **options: Any) -> None:
    """Fetch a list of caption<TAB>URL lines (CC3M's format) into webdataset shards; killed, it goes on."""
    from condmix.download.shards import Options
    from condmix.download.shards import main as run

    say(run(source, folder, Options(**options)))


@main.command()
@click.option("--what", type=click.Choice(["train", "sample"]), default="train", show_default=True)
@click.option("--size", default="9m", show_default=True, help="Parameters: quick, 9m or 36m.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Pictures per step.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Timed steps of each contender.")
@click.option("--seconds", type=FiniteNumber(0, min_open=True), help="End the timed rounds early after so long.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: PyTorch's choice]")
@click.option("--contenders", default="", help="Names with commas between them.  [default: all that --list shows]")
@click.option("--compile/--no-compile", default=None, help="torch.compile in our recipe.  [default: on a GPU]")
@click.option("--probes/--no-probes", default=True, help="Whether to measure memory and count FLOPs, in new processes.")
@click.option("--loss", type=click.IntRange(1), help="Also compare held-out losses after so many pictures.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.  [default: benchmarks/results/<conditions>]")
@click.option("--list", "list_only", is_flag=True, help="List contenders and sizes, and measure nothing.")
def bench(  # noqa: PLR0913 (a parameter for each option)
    list_only: bool,
    what: str,
    size: str,
    batch_size: int,
    compile: bool | None,
    contenders: str,
    threads: int | None,
    out: Path | None,
    **plan: Any,
) -> None:
    """Time our training step or sampler beside other libraries', by turns (see benchmarks/README.md)."""
    from condmix.bench.run import BenchPlan, listing
    from condmix.bench.run import main as run
    from condmix.bench.setting import setting_here

    if list_only:
        say(listing())
        return
    names = [name.strip() for name in contenders.split(",") if name.strip()]
    say(run(setting_here(what, size, batch_size, compile), BenchPlan(**plan), names, threads, out))


@main.group()
def tracking() -> None:
    """The records of runs in MLflow."""


@tracking.command("sync")
def tracking_sync() -> None:
    """Deliver to MLflow what it could not take while runs went on (.checkpoints/tracking)."""
    from condmix.tracking.delivery import sync

    say(sync())


@main.group()
def data() -> None:
    """Look into the profile's data set."""


@data.command("check")
@click.option("--profile", help="Which conf/<profile>.yaml.  [default: that of params.yaml]")
def data_check(profile: str | None) -> None:
    """Read every picture and caption, and say what is wrong with which; fails if the pipeline would."""
    from condmix.data.check import check_data
    from condmix.settings.load import load
    from condmix.stages.check import WITH_DATA

    params = load(profile=profile)
    table, findings = check_data(params, WITH_DATA)
    say("\n".join([table, "", *findings.lines()]))
    if findings.stops:
        raise CondmixError(f"the pipeline would stop at the data of profile {params.profile}: mend the errors above")


@main.group()
def experiments() -> None:
    """Run a grid of experiments over several seeds, and write the page that compares them; or search settings."""


_grid = click.option("--grid", "name", default="demo", show_default=True, help="Which conf/experiments/<grid>.yaml.")
_strict = click.option("--strict", is_flag=True, help="Leave out the runs that another version of the code made.")


@experiments.command()
@_grid
@_strict
def plan(name: str, strict: bool) -> None:
    """List the grid's runs, which are done, and what the others will cost."""
    from condmix.experiments.evidence import table
    from condmix.experiments.grid import read_grid

    root = Path.cwd()
    say(table(root, read_grid(root, name), strict))


@experiments.command()
@_grid
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time.")
@click.option("--only", multiple=True, metavar="EXPERIMENT", help="Run only this experiment; can be repeated.")
def run(name: str, jobs: int, only: tuple[str, ...]) -> None:
    """Run what is missing; interrupted, the same command goes on where it was."""
    from condmix.experiments.grid import read_grid
    from condmix.experiments.runner import run_grid

    root = Path.cwd()
    run_grid(root, read_grid(root, name), jobs, only)


@experiments.command()
@click.argument("name", default="demo")
@click.option("--trials", type=click.IntRange(1), help="Trials in all.  [default: what the file says]")
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trials at a time.")
def search(name: str, trials: int | None, jobs: int) -> None:
    """Try settings that Optuna suggests, as conf/searches/<NAME>.yaml says; the same command goes on after a kill."""
    from condmix.experiments.search import read_search
    from condmix.experiments.trials import run_search

    root = Path.cwd()
    say(run_search(root, read_search(root, name), trials, jobs))


@experiments.command("report")
@_grid
@_strict
def experiments_report(name: str, strict: bool) -> None:
    """Write metrics/experiments/<grid>/ from the finished runs; it says which of them other code made."""
    from condmix.experiments.grid import read_grid
    from condmix.reporting.grid_page import report

    root = Path.cwd()
    say(str(report(root, read_grid(root, name), strict) / "index.html"))


def _params() -> Params:
    from condmix.settings.load import load

    return load()


def _view(stage: str) -> Params:
    from condmix.pipeline import view

    return view(_params(), stage)


if __name__ == "__main__":
    main()
