"""Settings: what is accepted, and the one sentence for each thing that is not."""

import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from condmix import CondmixError
from condmix.settings.load import load, plugin, plugins
from profiles import profile

ROOT = Path(__file__).parents[2]


COMMIT = "0123456789abcdef" * 2 + "01234567"
IMPORT = {"perspective": "dino_1", "split": "train", "path": "a.npz", "sha256": "0" * 64}
T5 = {"model": "google-t5/t5-small", "revision": COMMIT, "max_tokens": 128, "precision": "fp32"}


def captioner(**changes):
    given = {"captioner": "coca", "model": "coca_ViT-L-14", "revision": "laion2b_s13b_b90k"}
    return profile(generated=given | changes)["generated"]


@pytest.fixture
def project(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    return tmp_path


def change(path: Path, *keys, value):
    content = yaml.safe_load(path.read_text())
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("profile", [path.stem for path in (ROOT / "conf").glob("*.yaml")])
def test_every_profile_loads(project, profile):
    change(project / "params.yaml", "profile", value=profile)
    params = load(project)
    assert params.profile == profile
    assert params.paths.dataset == project / "data" / profile / "dataset"


def test_params_are_frozen(project):
    with pytest.raises(ValidationError):
        load(project).seed = 3


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (
            ("fusion",),
            "addtive",
            ["params.yaml", '"addtive"', "additive, attention, concat", "gated, mean", 'did you mean "additive"'],
        ),
        (("fusion",), {"name": "additive"}, ["params.yaml", "fusion", "string"]),
        (("profile",), "demoo", ['no profile "demoo"', "demo"]),
        (("perspectives",), ["caption_1", "captoin_2"], ['"captoin_2"', 'did you mean "caption_2"']),
        (("perspectives",), ["caption_1", "caption_99"], ['"caption_99"', "caption_5"]),
        (("perspectives",), ["image", "image"], ["one twice"]),
        (("perspectives",), ["caption_any_2"], ["caption_any_2", "that caption_any left over"]),
        (("perspectives",), [], ["perspectives"]),
        (("perspectives",), ["caption_joined_1"], ["2 or more: caption_joined_2; one alone is caption_1"]),
        (("perspectives",), ["caption_joined_0"], ["2 or more: caption_joined_2"]),
        (("perspectives",), ["caption_mean"], ["2 or more: caption_mean_2"]),
        (("perspectives",), ["caption_joined_9"], ["caption_joined_9 takes 9 captions, but embed.captions is 5"]),
        (("perspectives",), ["caption_mean_9"], ["caption_mean_9 takes 9 captions, but embed.captions is 5"]),
        (("perspectives",), ["caption_joined_3"], ["embed.joined alone are encoded: list 3 there"]),
        (("perspectives",), ["generated_mean_2"], ['no perspective "generated_mean_2"']),
        (("perspectives",), ["dino_joined_2"], ['no perspective "dino_joined_2"']),
        (("guidance",), "high", ["params.yaml", "guidance", "'high'"]),
        (("guidance",), -1, ["guidance", "-1"]),
        (("variants",), ["class_v3"], ["variants", "class_v3", "class_v1"]),
        (("guidence",), 3, ['no setting "guidence"', 'did you mean "guidance"']),
    ],
)
def test_a_mistake_in_params_is_named(project, keys, value, says):
    change(project / "params.yaml", *keys, value=value)
    with pytest.raises(CondmixError) as error:
        load(project)
    for part in says:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("train", "batchsize"), 3, ["conf/demo.yaml", '"train.batchsize"', 'did you mean "train.batch_size"']),
        (("train", "lr"), "fast", ["conf/demo.yaml", "train.lr", "'fast'"]),
        (("train", "ema"), 1.5, ["train.ema", "1.5"]),
        (("evaluate", "sampler"), "ddmp", ["conf/demo.yaml", '"ddmp"', "ddpm"]),
        (("data", "dataset"), "imagenet", ['no dataset "imagenet"', "cifar10, cifar10n, coco, demo"]),
        (("data", "image_size"), 18, ["18", "cannot be halved 2 times"]),
        (("embed", "t5"), T5 | {"revison": "y"}, ['no setting "embed.t5.revison"', "embed.t5.revision"]),
        (("embed", "batch_size"), "big", ["embed.batch_size is 'big'", 'a whole number from 1, or "auto"']),
        (("generated",), captioner(captioner="cocoa"), ['no captioner "cocoa"', 'did you mean "coca"']),
        (("generated",), captioner(model=""), ["generated.model"]),
        (("generated",), captioner(topp=1), ["generated.topp", '"generated.top_p"']),
        (("mixed_any",), [0, 0], ["mixed_any", "above 0"]),
        (("embed", "encoders"), ["t5_text"], ["conf/demo.yaml", "t5_text", "embed.t5 does not say which"]),
        (("embed", "joined"), [2, 6], ["embed.joined lists 6, but embed.captions is 5"]),
        (("embed", "joined"), [1], ["embed.joined.0 is 1"]),
        (("embed", "joined"), [2, 2], ["embed.joined names one twice: 2, 2"]),
        (("embed", "imports"), [IMPORT | {"perspective": "t5_joined_2"}], ["must be a lowercase word and a number"]),
        (("embed", "imports"), [IMPORT | {"perspective": "dino"}], ['"dino" must be a lowercase word and a number']),
        (("embed", "imports"), [IMPORT | {"perspective": "caption_7"}], ['"caption_7"', "our own encoders"]),
        (("embed", "imports"), [IMPORT, IMPORT | {"path": "b"}], ["dino_1 has two files for the split train"]),
        (("embed", "imports"), [IMPORT | {"sha256": "0" * 63}], ["embed.imports.0.sha256", "000"]),
        (("diffusion", "prediction"), "noise", ["diffusion.prediction", "'noise'", "epsilon"]),
    ],
)
def test_a_mistake_in_a_profile_is_named(project, keys, value, says):
    change(project / "conf" / "demo.yaml", *keys, value=value)
    with pytest.raises(CondmixError) as error:
        load(project)
    for part in says:
        assert part in str(error.value)


def test_perspectives_of_t5_and_imports_are_known_where_the_profile_has_them(project):
    names = ["t5_1", "dino_1", "t5_2_again"]
    change(project / "params.yaml", "perspectives", value=names)
    with pytest.raises(CondmixError, match='no perspective "t5_1"'):
        load(project)
    encoders = ["clip_image", "clip_text", "class_label", "t5_text"]
    change(project / "conf" / "demo.yaml", "embed", "encoders", value=encoders)
    change(project / "conf" / "demo.yaml", "embed", "t5", value=T5)
    with pytest.raises(CondmixError, match='no perspective "dino_1"'):
        load(project)
    change(project / "conf" / "demo.yaml", "embed", "imports", value=[IMPORT])
    assert load(project).perspectives == tuple(names)


def test_generated_captions_are_perspectives_where_the_profile_has_a_captioner(project):
    change(project / "params.yaml", "perspectives", value=["generated_2", "mixed_any"])
    with pytest.raises(CondmixError, match='no perspective "generated_2"; found: class, image, pseudo, caption_1'):
        load(project)
    change(project / "conf" / "demo.yaml", "generated", value=captioner(captions=2))
    assert load(project).perspectives == ("generated_2", "mixed_any")
    change(project / "params.yaml", "perspectives", value=["generated_3"])
    with pytest.raises(CondmixError, match='no perspective "generated_3"'):
        load(project)


@pytest.mark.parametrize("kind", ["datasets", "encoders", "fusions", "samplers"])
def test_every_plugin_file_defines_what_its_name_says(kind):
    assert plugins(kind)
    for name in plugins(kind):
        assert plugin(kind, name).__module__ == f"condmix.{kind}.{name}"
