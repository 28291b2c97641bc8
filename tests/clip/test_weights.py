"""Folders of weights from elsewhere: none of them runs code, fetches more, or is opened damaged."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from captioner_helpers import save_tiny_blip, save_tiny_coca, save_tiny_florence2, settings
from clip_helpers import TINY, known_as, save_tiny_clip, save_tiny_siglip
from condmix import CondmixError
from condmix.captioners._coca_training import new_coca
from condmix.clip import openclip
from condmix.clip.folder import CARD, CONFIG, WEIGHTS, load_clip
from condmix.clip.weights import VOCABULARIES, check_text_tower, refuse_code
from condmix.encoders.t5_text import T5Text
from condmix.evaluation import judges
from condmix.settings.load import plugin
from condmix.stages import check, encode
from profiles import content, section
from t5_helpers import save_tiny_t5, t5_settings


def captioner(name):
    return lambda folder: plugin("captioners", name).open(settings(name, content(folder)), None)


KINDS = {  # how a folder is made, opened, and which of its JSON files can name code
    "clip": (save_tiny_clip, load_clip, (CONFIG,)),
    "siglip": (save_tiny_siglip, load_clip, (CONFIG, "tokenizer_config.json")),
    "t5": (
        save_tiny_t5,
        lambda folder: T5Text.open(None, [], settings=t5_settings(folder)),
        ("config.json", "tokenizer_config.json"),
    ),
    "blip": (save_tiny_blip, captioner("blip"), ("config.json", "processor_config.json", "generation_config.json")),
    "florence2": (save_tiny_florence2, captioner("florence2"), ("config.json", "tokenizer_config.json")),
    "coca": (save_tiny_coca, captioner("coca"), (CONFIG,)),
}
CODE = [
    ("auto_map", {"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None], "AutoProcessor": "evil.Evil"}),
    ("auto_map", {"AutoModel": "some/where--evil.Evil"}),
    ("trust_remote_code", True),
    ("trust_remote_code", 1),
    ("trust_remote_code", False),
    ("custom_pipelines", {"x": {"impl": "evil.Evil"}}),
    ("attn_implementation", "some/kernels"),
    ("_attn_implementation", {"text_config": "some/kernels"}),
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    pytest.importorskip("transformers")
    made = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in made.items():
        KINDS[kind][0](folder)
    return made


@pytest.fixture
def copy(originals, tmp_path):
    """A folder of this kind to be changed, with Python code in it that leaves a file if it runs."""

    def run(kind):
        folder = tmp_path / kind
        folder.mkdir()
        for path in originals[kind].iterdir():
            if path.name == CARD:
                continue  # as others write a CLIP's folder, without a checksum
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
        return folder

    return run


def change(path, *keys, **values):
    """Set values in a JSON file, at the dictionary that the keys lead to."""
    content = json.loads(path.read_text()) if path.exists() else {}
    inner = content
    for key in keys:
        inner = inner.setdefault(key, {})
    inner.update(values)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_run_code_is_refused_by_file_and_key(kind, copy, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks whether to run the code"))
    folder, opened = copy(kind), KINDS[kind][1]
    opened(folder)  # as it is
    for name in KINDS[kind][2]:
        content = (folder / name).read_text() if (folder / name).exists() else None
        for key, value in CODE:
            for where in ((), ("text_config", "deeper")):
                change(folder / name, *where, **{key: value})
                with pytest.raises(CondmixError, match=f'{name} has the key "{key}"') as error:
                    opened(folder)
                assert "\n" not in str(error.value)
                (folder / name).unlink() if content is None else (folder / name).write_text(content)
    opened(folder)
    assert not (tmp_path / "ran").exists()


def test_open_clip_s_way_to_run_code_is_closed(copy, tmp_path):
    """tokenizer_kwargs of the configuration go to transformers as they are, whose tokenizer then names the code."""
    folder = copy("siglip")
    change(folder / CONFIG, "model_cfg", "text_cfg", "tokenizer_kwargs", trust_remote_code=True)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(CondmixError, match='has the key "trust_remote_code"'):
        load_clip(folder)
    change(folder / CONFIG, "model_cfg", "text_cfg", tokenizer_kwargs={"clean": "canonicalize"})
    with pytest.raises(CondmixError, match='tokenizer_config.json has the key "auto_map"'):
        load_clip(folder)
    assert not (tmp_path / "ran").exists()


def test_condmix_check_refuses_what_the_pipeline_would(project, copy):
    folder = copy("t5")
    t5 = {"model": content(folder), "revision": None, "max_tokens": 8, "precision": "fp32"}
    settings = project.model_copy(update={"embed": section("embed", t5=t5)})
    check.main(settings)
    change(folder / "config.json", auto_map={})
    t5["model"] = content(folder)
    settings = project.model_copy(update={"embed": section("embed", t5=t5)})
    with pytest.raises(CondmixError, match='conf/tiny.yaml: .*config.json has the key "auto_map"'):
        check.main(settings)


@pytest.mark.parametrize("kind", ["t5", "blip"])
def test_condmix_check_refuses_a_folder_without_safetensors(kind, project, copy):
    folder = copy(kind)
    (folder / "model.safetensors").unlink()
    if kind == "t5":
        t5 = {"model": content(folder), "revision": None, "max_tokens": 8, "precision": "fp32"}
        changes = {"embed": section("embed", t5=t5)}
    else:
        changes = {"generated": section("generated", captioner="blip", model=content(folder))}
    with pytest.raises(CondmixError, match=f"conf/tiny.yaml: {folder} has no model.safetensors"):
        check.main(project.model_copy(update=changes))


@pytest.mark.parametrize(
    "kind, name, keys, values, says",
    [
        ("t5", "config.json", (), {"dropout_rate": "x"}, "transformers can load|fails on captions"),
        ("t5", "tokenizer_config.json", (), {"model_max_length": [8]}, "it must be a number of at least 1"),
        ("blip", "config.json", ("text_config",), {"pad_token_id": -1}, "fails on pictures"),
    ],
)
def test_settings_that_a_model_cannot_run_with_are_one_sentence(kind, name, keys, values, says, copy):
    folder, pictures = copy(kind), list(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8))
    change(folder / name, *keys, **values)
    with pytest.raises(CondmixError, match=says):
        opened = KINDS[kind][1](folder)
        for seed in range(20):  # captions that end at different lengths are padded
            opened.caption(opened.see(pictures), "", seed)


def test_a_word_of_a_vocabulary_may_be_called_so(tmp_path):
    for name in VOCABULARIES:
        (tmp_path / name).write_text(json.dumps({"model": {"vocab": {"auto_map": 7, "trust_remote_code": 8}}}))
    refuse_code(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"auto_map": ["evil.Evil", null]}')
    with pytest.raises(CondmixError, match='tokenizer.json has the key "auto_map"'):
        refuse_code(tmp_path)


def test_folders_within_the_folder_are_read_too(tmp_path):
    (tmp_path / "text" / "tower").mkdir(parents=True)
    (tmp_path / "text" / "tower" / "config.json").write_text('{"a": [{"auto_map": {"AutoModel": "evil.Evil"}}]}')
    with pytest.raises(CondmixError, match='text/tower/config.json has the key "auto_map"'):
        refuse_code(tmp_path)


def test_a_pipe_in_a_folder_of_weights_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CondmixError, match="config.json is not a regular file"):
        refuse_code(tmp_path)


def test_a_model_of_the_hub_is_checked_after_its_download(copy, monkeypatch):
    folder, asked = copy("t5"), {}

    def snapshot_download(model, **options):
        asked.update(options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    named = t5_settings(folder, model="someone/model", revision="a" * 40)
    T5Text.open(None, [], settings=named)
    assert asked["revision"] == "a" * 40 and not any("py" in pattern for pattern in asked["allow_patterns"])
    change(folder / "config.json", auto_map={"AutoConfig": "evil.Evil"})
    with pytest.raises(CondmixError, match='config.json has the key "auto_map"'):
        T5Text.open(None, [], settings=named)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a": ' * 5_000, b"nonsense"])
@pytest.mark.parametrize("kind", ["siglip", "t5", "coca"])
def test_json_that_is_none_is_one_sentence(kind, content, copy):
    folder, opened, name = copy(kind), KINDS[kind][1], KINDS[kind][2][-1]
    (folder / name).write_bytes(content)
    with pytest.raises(CondmixError, match=f"{name} is not JSON") as error:
        opened(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["[]", "5", "null", '"text"', "{}", '{"model_cfg": 5}', '{"text_config": []}'])
def test_json_of_another_shape_is_one_sentence(kind, content, copy):
    folder, opened, name = copy(kind), KINDS[kind][1], KINDS[kind][2][0]
    (folder / name).write_text(content)
    with pytest.raises(CondmixError) as error:
        opened(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    "where, values",
    [
        (("preprocess_cfg",), {"size": 0}),
        (("preprocess_cfg",), {"size": [8, -1]}),
        (("preprocess_cfg",), {"mean": [0.5]}),
        (("preprocess_cfg",), {"mean": [float("nan")] * 3}),
        (("preprocess_cfg",), {"std": [0, 1, 1]}),
        (("preprocess_cfg",), {"interpolation": "nearest"}),
        (("preprocess_cfg",), {"resize_mode": 5}),
        (("preprocess_cfg",), {"mode": "CMYK"}),
        (("model_cfg",), {"embed_dim": 0}),
        (("model_cfg",), {"embed_dim": "16"}),
        (("model_cfg",), {"vision_cfg": []}),
        (("model_cfg",), {"text_cfg": None}),
        (("model_cfg", "vision_cfg"), {"layers": 10**9}),
        (("model_cfg", "vision_cfg"), {"width": 10**12}),
        (("model_cfg", "vision_cfg"), {"patch_size": 0}),
        (("model_cfg", "vision_cfg"), {"layers": "many"}),
        (("model_cfg", "vision_cfg"), {"timm_model_name": "hf-hub:some/where"}),
        (("model_cfg", "text_cfg"), {"layers": -1}),
        (("model_cfg", "text_cfg"), {"heads": 0}),
        (("model_cfg", "text_cfg"), {"vocab_size": 10**12}),
        (("model_cfg", "text_cfg"), {"context_length": None}),
        (("model_cfg", "text_cfg"), {"hf_model_name": "some/where"}),
        (("model_cfg", "text_cfg"), {"hf_model_name": 5}),
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": {"bpe_path": "/some/file"}}),
        (("model_cfg", "text_cfg"), {"tokenizer_kwargs": "clean"}),
    ],
)
def test_a_configuration_that_makes_no_clip_is_one_sentence(where, values, copy):
    folder = copy("clip")
    change(folder / CONFIG, *where, **values)
    with pytest.raises(CondmixError) as error:
        load_clip(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_a_text_tower_of_transformers_is_one_that_open_clip_has_or_lies_in_the_folder(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    asked = []
    monkeypatch.setattr(
        transformers.AutoConfig, "from_pretrained", lambda name, **options: asked.append((name, options))
    )
    check_text_tower({"text_cfg": {"hf_model_name": "xlm-roberta-base"}}, "clip.model")
    assert asked == [("xlm-roberta-base", {"trust_remote_code": False})]
    with pytest.raises(CondmixError, match="hf_model_name some/where is neither in the folder nor one that open_clip"):
        check_text_tower({"text_cfg": {"hf_model_name": "some/where"}}, "clip.model", tmp_path)
    for made in (encode.new_clip, lambda model: new_coca(model, 10)):
        with pytest.raises(CondmixError, match="some/where is neither"):
            made({"embed_dim": 8, "text_cfg": {"hf_model_name": "some/where"}})
    tower = tmp_path / "tower"
    tower.mkdir()
    check_text_tower({"text_cfg": {"hf_model_name": str(tower)}}, "clip.model", tmp_path)
    (tower / "config.json").write_text('{"auto_map": {}}')
    with pytest.raises(CondmixError, match='has the key "auto_map"'):
        check_text_tower({"text_cfg": {"hf_model_name": str(tower)}}, "clip.model", tmp_path)


@pytest.mark.parametrize("kind, name", [("clip", WEIGHTS), ("t5", "model.safetensors"), ("blip", "model.safetensors")])
def test_weights_that_are_not_numbers_are_refused(kind, name, copy):
    folder = copy(kind)
    tensors = load_file(folder / name)
    broken = next(key for key, tensor in tensors.items() if tensor.ndim == 2 and "embedding" not in key)
    tensors[broken].view(-1)[0] = float("nan")
    save_file(tensors, folder / name, {"format": "pt"})
    with pytest.raises(CondmixError, match=f"{folder}: the weights {broken} hold NaN"):
        KINDS[kind][1](folder)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The name of an architecture that open_clip knows for the time of a test."""
    known_as(monkeypatch, tmp_path, "tiny-clip", TINY)
    return "tiny-clip"


@pytest.mark.parametrize("content", [{}, [], 5, {"a": 1}, {"state_dict": {}}, {"state_dict": 5}, torch.zeros(2), None])
def test_a_pt_file_that_holds_no_weights_is_one_sentence(content, tiny, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(CondmixError, match=f"weights.pt does not hold the weights of {tiny}") as error:
        openclip.load_pretrained(tiny, None, str(tmp_path / "weights.pt"))
    assert "\n" not in str(error.value)
    with pytest.raises(CondmixError, match=r"weights.pt is not a ResNet-56 checkpoint of .* \(.+\)") as error:
        judges.load_resnet56(tmp_path / "weights.pt")
    assert "\n" not in str(error.value)


def test_a_judge_of_nan_is_refused(tmp_path):
    network = judges.Judge("resnet56", {"class": judges.CIFAR10_CLASSES}, 32)
    state = {f"module.{name}": tensor for name, tensor in network.network.state_dict().items()}
    state |= {f"module.linear.{name}": tensor for name, tensor in network.linears[0].state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    judges.load_resnet56(tmp_path / "weights.pt")
    state["module.linear.bias"][0] = float("inf")
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    with pytest.raises(CondmixError, match="weights.pt: the weights .*bias hold NaN or infinity"):
        judges.load_resnet56(tmp_path / "weights.pt")


def test_a_pickle_is_never_run(tiny, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CondmixError):
        openclip.load_pretrained(tiny, None, str(tmp_path / "evil.pt"))
    with pytest.raises(CondmixError):
        judges.load_resnet56(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
