"""Tiny pretrained towers with random weights, in the files that real ones come in."""

from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from condmix.clip.towers import Pixels
from condmix.settings import schema
from profiles import content
from t5_helpers import save_tiny_bert

PIXELS = Pixels((0.4, 0.5, 0.6), (0.2, 0.25, 0.5))
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "image_size": 32},
    "text_cfg": {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear", "context_length": 10},
}


def save_tiny_backbone(path, seed=0):
    """Write the weights of a network of timm with a classifier; returns it without."""
    import timm

    torch.manual_seed(seed)
    backbone = timm.create_model("test_efficientnet", num_classes=7).eval()
    save_file(backbone.state_dict(), path)
    backbone.reset_classifier(0)
    return backbone


def backbone_settings(path):
    """An entry of a profile's embed.timm."""
    shown = {"image_size": 32, "mean": PIXELS.mean, "std": PIXELS.std}
    return schema.Backbone(model="test_efficientnet", weights=content(path), **shown)


def save_tiny_towers(folder, seed=0):
    """Write image.safetensors, with a classifier, and the folder text; returns their paths and both networks."""
    backbone = save_tiny_backbone(folder / "image.safetensors", seed)
    (folder / "text").mkdir()
    encoder = save_tiny_bert(folder / "text", seed)
    return SimpleNamespace(image=folder / "image.safetensors", text=folder / "text", backbone=backbone, encoder=encoder)
