"""`condmix check`: what the settings name, keys that are missing, and contents that are not what was meant."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import condmix as condmix_package
from clip_helpers import save_tiny_clip, save_tiny_siglip
from condmix import CondmixError
from condmix.cli import main
from condmix.datasets.demo import Demo
from condmix.diffusion.model import ConditionalModel
from condmix.evaluation.judges import ResNet56
from condmix.settings.content import content_sha256, located
from condmix.settings.load import load
from condmix.settings.schema import EXPERIMENT, Content, Params, Settings, _section_in, fields_at, nullable
from condmix.settings.variants import resolve
from condmix.training import trainer
from profiles import ROOT, content, profile
from t5_helpers import save_tiny_t5

YOURS = {  # what has no value that fits most profiles
    "data.dataset", "data.image_size", "generated.captioner", "generated.model", "generated.training.steps",
    "clip.towers.image", "clip.towers.text", "embed.t5.model", "model.channels", "model.multipliers", "model.blocks",
    "model.attention", "train.images", "judge.probe.model", "judge.probe.weights",
    "train.batch_size", "train.lr", "evaluate.n",
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def condmix(*command):
    done = CliRunner().invoke(main, command)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def write(project, **changes):
    (project / "conf" / "demo.yaml").write_text(yaml.safe_dump(profile(**changes)))


def keys(section=Params, prefix=""):
    """All dotted keys, those of sections that may be null too."""
    for name, field in section.model_fields.items():
        if name in ("root", *EXPERIMENT):
            continue
        inner = _section_in(field.annotation)
        if inner and not issubclass(inner, Content) and not re.search(r"tuple|dict\[", str(field.annotation)):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def value(settings, key):
    for part in key.split("."):
        settings = settings[part]
    return settings


def forget_padding(folder):
    """A tokenizer as GPT-2's: it has no token to pad with."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))


def forget_checksum_and_weights(folder):
    (folder / "condmix.json").unlink()
    (folder / "open_clip_model.safetensors").write_bytes(b"x" * 100)


def forget_checksum_and_size(folder):
    """Weights of another architecture."""
    (folder / "condmix.json").unlink()
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text().replace('"embed_dim": 16', '"embed_dim": 12'))


# No value in code


def sections(kind=Settings):
    for one in kind.__subclasses__():
        yield one
        yield from sections(one)


def test_no_setting_has_a_value_in_code():
    declared = {"Grid", "Experiment", "Search", "Range"}  # where what is left out changes nothing
    for section in sections():
        if section.__name__ not in declared:
            assert all(field.is_required() for field in section.model_fields.values()), section


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "conf").glob("*.yaml")])
def test_every_key_stands_in_every_profile(name):
    settings = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text())
    for key in keys():
        for section in ("generated", "prior", "embed.t5", "clip.towers", "judge.probe"):  # which may be null
            if key.startswith(f"{section}."):
                key = section
        value(settings, key)


def test_every_key_has_a_value_in_the_reference_or_is_the_profile_s_own():
    reference = yaml.safe_load((ROOT / "conf" / "reference" / "settings.yaml").read_text())
    for key in keys():
        if key in YOURS:
            with pytest.raises(KeyError):
                value(reference, key)
        else:
            value(reference, key)


# --fill


def test_missing_keys_are_named_all_at_once_and_filled_in(project):
    path = project / "conf" / "demo.yaml"
    whole = path.read_text()
    lost = ("  seed:", "  joined: 0", "  t5:", "  resamples:")
    lines = [line for line in whole.splitlines() if not line.startswith(lost)]
    path.write_text("\n".join(lines) + "\n")
    code, output = condmix("check")
    assert code == 1 and output.count("\n") == 1
    missing = "clip.joined, clip.seed, embed.t5, judge.seed, evaluate.resamples"
    assert f"conf/demo.yaml lacks {missing}; `condmix check --fill`" in output

    code, output = condmix("check", "--fill")
    assert code == 0
    assert output.splitlines() == [
        "added clip.joined: 0.5", "added clip.seed: 0", "added embed.t5: null", "added judge.seed: 0",
        "added evaluate.resamples: 200",
    ]  # fmt: skip
    after = path.read_text().splitlines()
    assert [line for line in after if line in lines] == lines  # nothing else is changed
    assert "  seed: 0  # its own, so that every experiment has the same judge" in after
    assert load(project) == load(ROOT).model_copy(update={"root": project, "clip": load(project).clip})
    assert condmix("check", "--fill") == (0, "")


def test_sections_in_braces_and_whole_sections_are_filled_in(project):
    settings = profile()
    del settings["diffusion"], settings["generated"]
    del settings["embed"]["t5"]
    settings |= {"prior": {"clusters": 8}, "captions": {}}
    text = yaml.safe_dump(settings, default_flow_style=None)
    (project / "conf" / "demo.yaml").write_text(text)
    assert condmix("check", "--fill")[0] == 0
    params = load(project)
    assert params.diffusion.steps == 1000 and params.generated is None and params.captions.templates == ()
    assert params.prior.clusters == 8 and params.prior.width == 512
    assert "captions: {templates: []}" in (project / "conf" / "demo.yaml").read_text()


def test_a_profile_with_aliases_is_filled_in_by_hand(project):
    """A key of a section that ends with an alias would end up where the anchor is."""
    path = project / "conf" / "demo.yaml"
    whole = re.sub(r"(?m)(?<=^evaluate:\n)", "  <<: &more {resamples: 200}\n", path.read_text())
    whole = re.sub(r"(?m)^  resamples: .*\n", "", whole).replace("<<: &more", "<<:")
    path.write_text(whole)
    assert load(project).evaluate.resamples == 200
    path.write_text(
        whole.replace("  lr: 2.0e-3\n", "  lr: &rate 2.0e-3\n", 1)
        .replace("  warmup: 0.02\n", "", 1)
        .replace("  weight_decay: 0.0\n", "  weight_decay: *rate\n")
    )
    before = path.read_text()
    assert "*rate" in before
    code, output = condmix("check", "--fill")
    assert code == 1 and output.count("\n") == 1 and path.read_text() == before
    assert "lacks train.warmup, and has aliases (*name), among which --fill can't tell where a key belongs" in output


def test_every_section_that_may_be_null_is_filled_in_as_null(project):
    """An older profile would else get half of a section, which no command takes any more."""
    settings, optional = profile(), []
    for section in ("", *settings):
        fields = fields_at(Params, (section,) if section else ())
        if section and nullable(fields_at(Params, ())[section]) or not isinstance(settings.get(section, {}), dict):
            continue
        for name, field in fields.items():
            if nullable(field) and _section_in(field.annotation) not in (None, Content):
                optional.append((section, name))
                del (settings[section] if section else settings)[name]
    assert {name for _, name in optional} >= {"generated", "prior", "towers", "t5", "probe"}
    (project / "conf" / "demo.yaml").write_text(yaml.safe_dump(settings))
    assert condmix("check", "--fill")[0] == 0
    params = load(project)
    assert all(getattr(getattr(params, section) if section else params, name) is None for section, name in optional)


@pytest.mark.parametrize(("page", "key"), [("captions.md", "generated"), ("language-free.md", "prior")])
def test_the_example_in_the_docs_is_filled_in(project, page, key):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    example = next(block for block in blocks if "steps: " in block and block.startswith(f"{key}:"))
    path = project / "conf" / "demo.yaml"
    path.write_text(re.sub(rf"(?m)^{key}:.*\n", lambda _: example, path.read_text()))
    assert condmix("check", "--fill")[0] == 0
    assert getattr(load(project), key) is not None


def test_what_has_no_general_value_stays_missing(project):
    path = project / "conf" / "demo.yaml"
    path.write_text(re.sub(r"  images: \d+\n|  warmup: 0.02\n", "", path.read_text()))
    code, output = condmix("check", "--fill")
    assert code == 1 and "added train.warmup: 0.02\n" in output and "lacks train.images;" in output


def test_a_typing_error_is_not_filled_in(project):
    path = project / "conf" / "demo.yaml"
    before = path.read_text().replace("  warmup: 0.02", "  warmpu: 0.02")
    path.write_text(before)
    code, output = condmix("check", "--fill")
    assert code == 1 and 'did you mean "train.warmup"?' in output and path.read_text() == before


# The check itself


def test_an_ordinary_user_may_check_after_dvc_made_the_output_a_read_only_link(project):
    assert condmix("check")[0] == 0
    ok, cached = project / "data" / "params.ok", project / "cached"
    before = ok.read_text()
    ok.rename(cached)
    cached.chmod(0o444)
    os.link(cached, ok)
    assert condmix("check")[0] == 0
    assert ok.read_text() == cached.read_text() == before and not os.path.samefile(ok, cached)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"guidance": float("inf")}, "params.yaml: guidance is inf; input should be a finite number"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"guidance": 1e39}, "guidance is 1e+39; input should be less than or equal to 1000"),
        ({"seed": 2**32}, "params.yaml: seed is 4294967296; input should be less than 4294967296"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True; input should be a valid integer"),
        ({"seed": "3"}, "seed is '3'"),
        ({"seed": 10**4000}, "seed is 1000000"),
        ({"perspectives": []}, "perspectives is []"),
        ({"variants": ["caption", "caption"]}, "variants names one twice"),
        ({"root": "x"}, 'params.yaml: no setting "root"'),
        ({"model": {}}, "params.yaml: model belongs into conf/demo.yaml; move it there"),
        ({"fu\x1bsion\n": 1}, 'no setting "fu\\u001bsion\\n"; found: fusion'),
    ],
)
def test_params_that_no_stage_could_use(project, changes, says):
    settings = yaml.safe_load((project / "params.yaml").read_text()) | changes
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    code, output = condmix("check")
    assert code == 1 and says in output and output.count("\n") == 1


ABSENT = {"path": "package:no_such/x", "sha256": "0" * 64}
HALF = [0.5, 0.5, 0.5]
TOWERS = {"image": ABSENT, "text": ABSENT, "mean": HALF, "std": HALF}
BACKBONE = {"model": "resnet18", "weights": ABSENT, "image_size": 32, "mean": HALF, "std": HALF}


def architecture(tower, **changes):
    model = profile()["clip"]["model"]
    return {"clip": {"model": model | {tower: model[tower] | changes}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clip": {"seed": 2**64}}, "clip.seed is 18446744073709551616"),
        ({"judge": {"seed": 2**64}}, "judge.seed is"),
        ({"prior": {"seed": -1}}, "prior.seed is -1"),
        ({"train": {"lr": float("inf")}}, "train.lr is inf"),
        ({"train": {"ema": "0.9"}}, "train.ema is '0.9'"),
        ({"train": {"compile": 1}}, "train.compile is 1"),
        ({"evaluate": {"sweep": [1.0, float("nan")]}}, "evaluate.sweep.1 is nan"),
        ({"evaluate": {"steps": 1001}}, "evaluate.steps 1001 is more than the 1000 of diffusion.steps"),
        ({"evaluate": {"interval": [0.8, 0.2]}}, "evaluate.interval is [0.8, 0.2]; an interval's first share"),
        ({"evaluate": {"features": []}}, "evaluate.features is []"),
        ({"evaluate": {"features": ["clip", "clip"]}}, "evaluate.features names one twice"),
        ({"evaluate": {"n": 1}}, "evaluate.n is 1; input should be greater than or equal to 2"),
        ({"evaluate": {"other_n": 1}}, "evaluate.other_n is 1"),
        ({"evaluate": {"sweep_n": 1}}, "evaluate.sweep_n is 1"),
        ({"evaluate": {"n": 10**12}}, "evaluate.n is 1000000000000"),
        ({"diffusion": {"steps": 1}}, "diffusion.steps is 1"),
        ({"diffusion": {"min_snr_gamma": -5.0}}, "diffusion.min_snr_gamma is -5.0; input should be greater than 0"),
        ({"prior": {"sample_steps": 1001}}, "prior.sample_steps 1001 is more than the 1000 times of the prior"),
        ({"model": {"attention": [7]}}, "model.attention is at size 7, which does not occur; the levels have 16, 8, 4"),
        ({"model": {"multipliers": []}}, "model.multipliers is []; list at least 1"),
        ({"model": {"channels": 7}}, "model.channels is 7"),
        ({"model": {"match_parameters": 10}}, "model.match_parameters is 10, but with fusion concat of image + class"),
        ({"embed": {"encoders": []}}, "embed.encoders is []"),
        ({"embed": {"encoders": ["clip_text"]}}, "embed.encoders lacks clip_image, which all variants need; add it"),
        (
            {"embed": {"encoders": ["clip_image", "class_label"]}},
            "embed.encoders lacks clip_text, which caption_1 of the variant caption needs",
        ),
        ({"judge": {"batch_size": 1}}, "judge.batch_size is 1; input should be greater than or equal to 2"),
        ({"clip": {"batch_size": 2}}, "clip.batch_size 2 leaves each of 2 clip.processes 1 pictures"),
        ({"train": {"processes": 3}}, "train.batch_size 64 does not divide into 3 equal shares"),
        ({"clip": {"model": "ViT-B-32", "towers": TOWERS}}, "clip.towers are of a CLIP that is trained here: give its"),
        ({"clip": {"towers": TOWERS | {"std": [1.0, 0.0, 1.0]}}}, "clip.towers.std is [1.0, 0.0, 1.0]; a standard dev"),
        ({"clip": {"towers": TOWERS}}, "clip.towers.image: package:no_such/x: no Python package no_such is installed"),
        ({"evaluate": {"features": ["vgg"]}}, 'no evaluate.features "vgg"; found: inception, judge, clip'),
        ({"embed": {"timm": {"clip": BACKBONE}}}, "a network's name is a lowercase word, such as dino, and not inc"),
        (
            {"embed": {"encoders": ["clip_image", "timm_image"]}},
            "embed.encoders has timm_image, but embed.timm names no",
        ),
        ({"captions": {"templates": ["a {c}."]}}, "captions.templates.0 is 'a {c}.'; a template has"),
        ({"captions": {"templates": ["a photo"]}}, "a template has {} once, in the place of the class name"),
        ({"captions": {"templates": ["{} and {}"]}}, "a template has {} once, in the place of the class name"),
        ({"captions": {"templates": ["a {{photo}} of {}"]}}, "and no other braces"),
        ({"captions": {"templates": ["a {} {"]}}, "a template has {}"),
        ({"data": {"world": {"train": 10**12, "test": 5, "seed": 1}}}, "data.world.train is 1000000000000"),
        ({"data": {"world": {"train": 10**7, "test": 5, "seed": 1}}}, "needs 1 to 300,000 scenes per split"),
        ({"data": {"world": {}}}, "the demo world needs the whole numbers ['seed', 'test', 'train']"),
        ({"data": {"dataset": "folder", "world": {"held_out_percent": 100}}}, "held_out_percent, from 1 to 99"),
        ({"data": {"dataset": "cifar10", "world": {"a": 1}}}, "data.world takes no settings here"),
        (architecture("text_cfg", vocab_size=100), "text_cfg.vocab_size is 100, but CLIP's tokenizer has 49408 tokens"),
        (architecture("text_cfg", context_length=2), "text_cfg.context_length is 2"),
        (architecture("text_cfg", heads=3), "clip.model is not a configuration that open_clip can build"),
        (architecture("vision_cfg", image_size=8), "clip.model is built by open_clip, but does not run"),
        ({"clip": {"model": None}}, "clip.model is empty"),
        ({"clip": {"model": "ViT-B-23"}}, 'open_clip has no model "ViT-B-23"; near to it are ViT-B-32'),
        ({"clip": {"model": "ViT-B-32", "pretrained": "opnai"}}, 'no clip.pretrained of ViT-B-32 "opnai"'),
        ({"clip": {"pretrained": "openai"}}, "clip.pretrained openai is of a model that open_clip knows"),
        (
            {"generated": {"captioner": "trained_coca", "model": "a", "revision": None}},
            "trained_coca is trained here: give its architecture as generated.model",
        ),
        (
            {"generated": {"captioner": "coca", "model": {"embed_dim": 4}, "training": {"steps": 1}}},
            "coca is not trained here: give a folder or a name",
        ),
        (
            {"generated": {"captioner": "trained_coca", "model": {"embed_dim": 4}, "training": {"steps": 1}}},
            "generated.model is not a CoCa that open_clip can build",
        ),
        ({"generated": {"captioner": "coca", "model": "coca_ViT-B-32", "revision": "x"}}, "open_clip has no weights x"),
        (
            {"generated": {"captioner": "blip", "model": "Salesforce/blip", "revision": "main"}},
            "so revision must be a commit of it (40 hex digits)",
        ),
        (
            {"generated": {"captioner": "blip", "model": "x", "better_than": 0.9, "batch_size": 1}},
            "generated: better_than compares the pictures of a batch",
        ),
    ],
)
def test_settings_at_which_a_stage_would_stop(project, changes, says):
    write(project, **changes)
    code, output = condmix("check")
    assert code == 1 and says in output, output
    assert output.startswith("condmix: conf/demo.yaml: ") and output.count("\n") == 1


# Contents


def test_a_sha256_is_that_of_the_usual_tools(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name, text in {"b.txt": "1", "a": "2", "sub/c": "", ".cache/x": "3", ".DS_Store": "4"}.items():
        (folder / name).write_text(text)
    command = "find -L . -type f -not -path '*/.*' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True).stdout.split()[0]
    assert content_sha256(folder) == said
    assert condmix("hash", str(folder)) == (0, f"{said}\n")
    (folder / "sub" / "c").write_text("5")
    assert content_sha256(folder) != said
    assert content_sha256(folder / "a") == "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"


def test_a_path_may_lie_in_an_installed_package():
    sampler = located("package:condmix/samplers/ddim.py")
    assert sampler == Path(condmix_package.__file__).parent / "samplers" / "ddim.py"
    assert condmix("hash", "package:condmix/samplers/ddim.py") == (0, f"{content_sha256(sampler)}\n")
    for path in ("package:no_such/x", "package:", "package:../etc", "package:json.tool/x"):
        with pytest.raises(CondmixError, match="no Python package"):
            located(path)


@pytest.mark.parametrize("name", ["none", "empty", "fifo", "linked"])
def test_what_has_no_checksum_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "to").symlink_to(tmp_path / "empty")
    os.mkfifo(tmp_path / "fifo")
    code, output = condmix("hash", str(tmp_path / name))
    assert code == 1 and output.startswith("condmix: ") and output.count("\n") == 1 and name in output


@pytest.mark.parametrize(
    "setting", ["judge.weights", "clip.weights", "evaluate.scorer", "evaluate.inception_weights", "embed.imports"]
)
def test_a_content_that_changed_is_refused_with_both_checksums(project, setting):
    file = project / "file"
    file.write_text("old")
    meant = content(file).model_dump()
    file.write_text("new")
    section, key = setting.split(".")
    named = [meant | {"perspective": "dino_1", "split": "test"}] if key == "imports" else meant
    write(project, **{section: {key: named}})
    code, output = condmix("check")
    assert code == 1 and f"{setting}: {file} has sha256 {content_sha256(file)}, but" in output
    assert meant["sha256"] in output
    with pytest.raises(CondmixError, match="put the right content there"):
        Content.model_validate(meant).verified(setting)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"judge": {"weights": "/a/b"}}, "judge.weights is '/a/b'; a path is written {path: /a/b, sha256: ...}"),
        ({"judge": {"weights": {"path": "a"}}}, "lacks judge.weights.sha256"),
        ({"judge": {"weights": {"path": "a", "sha256": "x"}}}, "judge.weights.sha256 is 'x'"),
        ({"judge": {"weights": {"path": "gone", "sha256": "0" * 64}}}, "judge.weights: there is no file or folder"),
        ({"embed": {"t5": {"model": "./t5", "revision": None}}}, "a path is written {path: ./t5, sha256: ...}"),
    ],
)
def test_how_a_path_is_written_is_said(project, changes, says):
    if "embed" in changes:
        changes["embed"]["t5"] |= {"max_tokens": 9, "precision": "fp32"}
    write(project, **changes)
    code, output = condmix("check")
    assert code == 1 and says in output and output.count("\n") == 1


@pytest.mark.parametrize("lost", ["", "config.json", "tokenizer.json"])
def test_a_text_encoder_is_opened_before_anything_trains(project, lost):
    folder = project / "t5"
    save_tiny_t5(folder)
    if lost:
        (folder / lost).unlink()
    t5 = {"model": content(folder).model_dump(), "revision": None, "max_tokens": 9, "precision": "fp32"}
    write(project, embed={"t5": t5})
    code, output = condmix("check")
    assert bool(code) == bool(lost), output
    assert not lost or "t5 does not hold a text encoder that transformers can load" in output


@pytest.mark.parametrize(
    ("breaks", "says"), [("pad", "the tokenizer has no pad_token"), ("weights", "lacks 1 weights")]
)
def test_a_text_encoder_that_embed_could_not_use_is_refused_before_anything_trains(project, breaks, says):
    folder = project / "t5"
    save_tiny_t5(folder)
    if breaks == "pad":
        forget_padding(folder)
    else:
        weights = load_file(folder / "model.safetensors")
        weights.pop("encoder.final_layer_norm.weight")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    t5 = {"model": content(folder).model_dump(), "revision": None, "max_tokens": 9, "precision": "fp32"}
    write(project, embed={"t5": t5})
    code, output = condmix("check")
    assert code == 1 and says in output and output.count("\n") == 1, output


@pytest.mark.parametrize("revision", [None, "main", "0123abcd"])
def test_a_name_on_the_hub_needs_a_commit(project, revision):
    t5 = {"model": "google-t5/t5-small", "revision": revision, "max_tokens": 9, "precision": "fp32"}
    write(project, embed={"t5": t5})
    code, output = condmix("check")
    assert code == 1 and "google-t5/t5-small is a name on the Hugging Face hub, so revision must be a commit" in output


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, ""),
        ({"perspective": "dino_2"}, "is of perspective dino_2, but the profile's embed.imports says dino_1"),
        ({"split": "test"}, "is of split test, but the profile's embed.imports says train"),
        ({"ids": np.array(["a", "b", "c"])}, "ids must be 3 integers"),
        ({"vectors": np.float32([[1, 2], [0, 0], [np.nan, 1]])}, "has 2 vectors with NaN or infinity, or of zeros on"),
        (
            {"vectors": np.float64([[1, 2], [1, 0], [1e300, 1]])},
            "has 1 vectors with NaN or infinity, or of",
        ),
    ],
)
def test_imported_vectors_are_read_before_anything_trains(project, changed, says):
    facts = {"perspective": "dino_1", "split": "train", "encoder": "a test", "of": "image"}
    np.savez(project / "v.npz", **{"vectors": np.ones((3, 2), np.float32), "ids": np.arange(3), **facts, **changed})
    named = content(project / "v.npz").model_dump() | {"perspective": "dino_1", "split": "train"}
    write(project, embed={"imports": [named]})
    code, output = condmix("check")
    assert (code == 0) == (not says) and says in output, output


@pytest.mark.parametrize(
    ("split", "perspectives", "says"),
    [
        (
            "train",
            ["dino_1"],
            "variant experiment reads dino_1, but embed.imports has no file of dino_1 for the split te",
        ),
        ("train", ["dino_1", "dino_1_of_another"], "no file of dino_1 and dino_1 for the split test, so it can't be"),
        ("train", ["caption_1", "dino_1"], ""),  # evaluated without, as where test pictures lack a caption
        ("test", ["caption_1", "dino_1"], "reads dino_1, but embed.imports has no file of dino_1 for the split train"),
        ("test", ["dino_1_again"], "reads dino_1_again, but embed.imports has no file of dino_1 for the split train"),
        ("test", ["caption_1"], ""),
    ],
)
def test_imported_vectors_of_which_a_split_has_none_are_refused_where_they_are_read(project, split, perspectives, says):
    facts = {"perspective": "dino_1", "split": split, "encoder": "a test", "of": "image"}
    np.savez(project / "v.npz", vectors=np.ones((3, 2), np.float32), ids=np.arange(3), **facts)
    write(
        project,
        embed={"imports": [content(project / "v.npz").model_dump() | {"perspective": "dino_1", "split": split}]},
    )
    settings = yaml.safe_load((project / "params.yaml").read_text()) | {"perspectives": perspectives}
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    code, output = condmix("check")
    assert (code == 0) == (not says) and says in output and output.count("\n") <= 1, output


def test_imported_vectors_of_two_encoders_are_refused_before_anything_trains(project):
    listed = []
    for split, encoder in (("train", "one"), ("test", "two")):
        facts = {"perspective": "dino_1", "split": split, "encoder": encoder, "of": "image"}
        np.savez(project / f"{split}.npz", vectors=np.ones((3, 2), np.float32), ids=np.arange(3), **facts)
        listed.append(content(project / f"{split}.npz").model_dump() | {"perspective": "dino_1", "split": split})
    write(project, embed={"imports": listed})
    code, output = condmix("check")
    assert code and "dino_1 differ in encoder, one in training and two in the test split" in output


def test_vectors_of_a_caption_that_is_not_in_use_are_refused_before_anything_trains(project):
    facts = {"perspective": "words_7", "split": "train", "encoder": "a test", "of": "caption"}
    np.savez(project / "v.npz", vectors=np.ones((3, 2), np.float32), ids=np.arange(3), **facts)
    listed = [content(project / "v.npz").model_dump() | {"perspective": "words_7", "split": "train"}]
    write(project, embed={"imports": listed})
    code, output = condmix("check")
    assert code and "words_7 is of each picture's caption number 7, but " in output


def test_what_the_judges_are_is_known_before_anything_trains(project):
    (project / "wrong").write_text("no network")
    save_tiny_clip(project / "scorer")
    named = content(project / "wrong").model_dump()
    for changes, says in (
        ({"judge": {"weights": named}}, "is not a ResNet-56 checkpoint"),
        ({"evaluate": {"features": ["inception"], "inception_weights": named}}, "is not pytorch-fid's Inception"),
        (
            {"evaluate": {"scorer": named}},
            "wrong is not the folder of a CLIP in open_clip's format, for it has no",
        ),
    ):
        write(project, **changes)
        code, output = condmix("check")
        assert code == 1 and says in output, output
    write(project, evaluate={"scorer": content(project / "scorer").model_dump()})
    assert condmix("check") == (0, "")


@pytest.mark.parametrize("size", [16, 32])
def test_a_judge_of_pictures_of_another_size_is_refused(project, size):
    state = {f"module.{name}": tensor for name, tensor in ResNet56().state_dict().items()}
    state |= {"module.linear.weight": torch.zeros(10, 64), "module.linear.bias": torch.zeros(10)}
    torch.save({"state_dict": state, "best_prec1": 93.9}, project / "resnet56.th")
    weights = content(project / "resnet56.th").model_dump()
    write(project, judge={"weights": weights}, data={"image_size": size}, model={"attention": [8]})
    code, output = condmix("check")
    says = (
        "resnet56.th judges pictures of 32x32 pixels, but data.image_size is 16; write `weights: null` to train a judge"
    )
    assert (code == 0) == (size == 32) and (code == 0 or output.endswith(f"{says}\n")), output


# Networks are opened, and run once


def backbone(path, size, model="test_vit"):
    network = timm.create_model(model, num_classes=0)
    torch.save(network.state_dict(), path)
    half = [0.5, 0.5, 0.5]
    return {"model": model, "weights": content(path).model_dump(), "image_size": size, "mean": half, "std": half}


@pytest.mark.parametrize("setting", ["embed.timm", "judge.probe"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"model": "test_vti"}, 'timm has no model "test_vti"; near to it are test_vit'),
        ({"model": "test_resnet"}, "w.pth does not hold the weights of ResNet"),
        ({"image_size": 24}, "w.pth holds test_vit, which does not run on pictures of 24x24 pixels"),
    ],
)
def test_an_image_network_runs_before_anything_trains(project, setting, changes, says):
    network = backbone(project / "w.pth", 32) | changes
    section, key = setting.split(".")
    write(project, **{section: {key: {"dino": network} if key == "timm" else network}})
    code, output = condmix("check")
    assert (code == 0) == (not says) and says in output and output.count("\n") <= 1, output


def test_weights_of_an_image_network_that_are_none_are_refused(project):
    network = backbone(project / "w.pth", 32)
    (project / "w.pth").write_text("no weights")
    network["weights"] = content(project / "w.pth").model_dump()
    write(project, embed={"timm": {"dino": network}})
    code, output = condmix("check")
    assert code == 1 and "w.pth does not hold the weights of VisionTransformer" in output and output.count("\n") == 1


@pytest.mark.parametrize("setting", ["clip.weights", "evaluate.scorer"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "open_clip_config.json").unlink(), "not the folder of a CLIP in open_clip's format"),
        (lambda folder: (folder / "open_clip_model.safetensors").unlink(), "has no open_clip_model.safetensors"),
        (lambda folder: (folder / "open_clip_model.safetensors").write_bytes(b"x"), "is damaged"),
        (forget_checksum_and_weights, "does not hold a CLIP that open_clip can load"),
        (forget_checksum_and_size, "does not hold a CLIP that open_clip can load"),
    ],
)
def test_the_folder_of_a_clip_is_opened_before_anything_trains(project, setting, change, says):
    save_tiny_clip(project / "clip")
    change(project / "clip")
    section, key = setting.split(".")
    none = {"model": None} if section == "clip" else {}
    write(project, **{section: {key: content(project / "clip").model_dump()} | none})
    code, output = condmix("check")
    assert (code == 0) == (not says) and says in output and output.count("\n") <= 1, output


@pytest.mark.parametrize("pad", [True, False])
def test_a_text_tower_whose_tokenizer_cannot_pad_is_refused(project, pad):
    save_tiny_siglip(project / "clip")
    if not pad:
        forget_padding(project / "clip")
    write(project, clip={"weights": content(project / "clip").model_dump(), "model": None})
    code, output = condmix("check")
    assert (code == 0) == pad and (pad or "clip holds a CLIP that does not run" in output), output
    assert output.count("\n") <= 1


# The models, as they will be trained


@pytest.mark.parametrize("variant", ["class_v1", "experiment"])
@pytest.mark.parametrize("short", [0, 1])
def test_a_number_of_parameters_that_cannot_be_reached_is_refused_in_train_s_own_words(project, variant, short):
    """At the very number that train accepts, and one below it."""
    settings = yaml.safe_load((project / "params.yaml").read_text()) | {"variants": [variant]}
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    params = load(project)
    names = resolve(variant, params.fusion, params.perspectives)
    width = profile()["clip"]["model"]["embed_dim"]
    classes = len(Demo.class_names)
    perspectives = [{"name": one, "dim": classes if one == "class" else width} for one in names.perspectives]
    asked = trainer.architecture(params, {"fusion": names.fusion, "perspectives": perspectives, "dim": width})
    with torch.device("meta"):
        with pytest.raises(CondmixError) as refused:
            ConditionalModel(replace(asked, match_parameters=1))
        least = int(re.search(r"at least ([\d,]+)", str(refused.value))[1].replace(",", ""))
        if short:
            with pytest.raises(CondmixError) as refused:
                ConditionalModel(replace(asked, match_parameters=least - 1))
    write(project, model={"match_parameters": least - short})
    code, output = condmix("check")
    assert (code, output) == ((1, f"condmix: conf/demo.yaml: {refused.value}\n") if short else (0, ""))


def test_a_folder_says_itself_what_clip_it_holds(project):
    save_tiny_clip(project / "clip")
    weights = content(project / "clip").model_dump()
    write(project, clip={"weights": weights})
    assert "says itself what model it holds: write `model: null`" in condmix("check")[1]
    write(project, clip={"weights": weights, "model": None})
    assert condmix("check") == (0, "")
