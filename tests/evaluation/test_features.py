"""Feature spaces: Inception against pytorch-fid's own code, the judge's and CLIP's against their networks."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from clip_helpers import save_tiny_clip
from condmix import CondmixError
from condmix.encoders.timm_image import TimmImage
from condmix.evaluation import features
from condmix.evaluation.features import ClipFeatures, Inception, JudgeFeatures, extractors
from condmix.evaluation.judges import Judge
from tower_helpers import backbone_settings, save_tiny_backbone


def pictures(n: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge("small_cnn", {"shape": ["square", "circle"]}, 16).eval()


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> Path:
    """Random weights in the format of pytorch-fid's file: a state dict with the classifier, legacy serialisation."""
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05-6726825d.pth"
    torch.manual_seed(0)
    blocks = features.fid_inception()
    for module in blocks.modules():  # statistics that matter, as trained ones do
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(blocks.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def accepted(inception_file, monkeypatch) -> Path:
    """The random weights, taken for the real ones."""
    monkeypatch.setattr(features, "INCEPTION_SHA256", features._sha256(inception_file)[:8])
    return inception_file


def test_inception_equals_pytorch_fid(accepted, monkeypatch):
    import pytorch_fid.inception

    weights = torch.load(accepted, weights_only=True)
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: weights)
    theirs = pytorch_fid.inception.InceptionV3([3]).eval()
    images = pictures(2, 32)
    with torch.no_grad():
        expected = theirs(images.permute(0, 3, 1, 2) / 255)[0][:, :, 0, 0]
    ours = Inception(accepted)(images)
    assert ours.shape == (2, 2048) and expected.std() > 0
    assert torch.equal(ours, expected)


def test_other_weights_never_make_an_fid(inception_file, tmp_path):
    with pytest.raises(CondmixError, match="is not pytorch-fid's Inception .*its distances would not be FIDs"):
        Inception(inception_file)
    with pytest.raises(CondmixError, match="no Inception weights at .*; get https://github.com/mseitzer"):
        Inception(tmp_path / "absent.pth")


def test_inception_weights_come_from_torchs_cache(accepted, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / accepted.name).symlink_to(accepted)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert Inception().id == f"inception sha256:{features._sha256(accepted)}"


def test_without_network_one_sentence_says_where_the_weights_belong(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(features, "INCEPTION_URL", (tmp_path / "nowhere" / "inception.pth").as_uri())
    with pytest.raises(CondmixError, match="put file://.* at .*inception.pth, or name your copy in evaluate.incep"):
        Inception()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_judge_features_are_what_its_heads_read(judge):
    space = JudgeFeatures(judge)
    vectors = space(pictures(3, 16))
    assert vectors.shape == (3, 128) and vectors.dtype == torch.float32 and not vectors.requires_grad
    torch.testing.assert_close(judge.linears[0](vectors), judge(pictures(3, 16))["shape"])
    assert space.id == f"judge sha256:{judge.sha256}"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A tiny CLIP with random weights, for pictures of 8x8."""
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder)
    return folder


@pytest.mark.parametrize("size, tolerance", [(8, 1e-5), (16, 2e-2), (5, 2e-2)])  # resized, PIL rounds to 8 bits
def test_clip_features_are_those_of_its_own_preprocessing(clip_folder, size, tolerance):
    from condmix.encoders.clip_image import ClipImage

    images = pictures(3, size)
    expected = ClipImage.open(clip_folder, []).features(images.numpy())
    vectors = ClipFeatures(clip_folder)(images)
    assert vectors.shape == (3, 16) and vectors.dtype == torch.float32
    assert (vectors - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("size, tolerance", [(32, 1e-5), (40, 2e-2), (16, 2e-2)])  # resized, PIL rounds to 8 bits
def test_features_of_a_network_of_timm_are_those_of_its_encoder(tmp_path, size, tolerance):
    save_tiny_backbone(tmp_path / "weights.safetensors")
    settings = backbone_settings(tmp_path / "weights.safetensors")
    images = pictures(3, size)
    expected = TimmImage("tiny", settings, "cpu").features(images.numpy())
    (space,) = extractors(["tiny"], None, tmp_path, timm={"tiny": settings})
    assert space.name == "tiny" and settings.weights.sha256 in space.id
    assert (space(images) - expected).norm() < tolerance * expected.norm()


def test_spaces_are_found_by_name(judge, clip_folder):
    spaces = extractors(["judge", "clip"], judge, clip_folder)
    assert [space.name for space in spaces] == ["judge", "clip"]
    with pytest.raises(CondmixError, match='no features "vgg"; found: clip, inception, judge'):
        extractors(["vgg"], judge, clip_folder)
    with pytest.raises(CondmixError, match="this data has no judge"):
        extractors(["judge"], None, clip_folder)
