"""Image networks of timm: the names in a file of weights, and files that hold others."""

import pytest
import torch
from safetensors.torch import save_file

from condmix import CondmixError
from condmix.clip.backbone import load_backbone, open_backbone, timm_names
from tower_helpers import save_tiny_backbone


def test_names_of_efficientnet_pytorch_become_timms():
    import timm

    network = timm.create_model("tf_efficientnet_lite0", num_classes=10)
    blocks = [block for stage in network.blocks for block in stage]
    theirs = {"_conv_stem": network.conv_stem, "_bn0": network.bn1, "_conv_head": network.conv_head}
    theirs |= {"_bn1": network.bn2, "_fc": network.classifier}
    for i, block in enumerate(blocks):
        layers = {"_depthwise_conv": block.conv_dw}
        if hasattr(block, "conv_pwl"):
            layers |= {"_expand_conv": block.conv_pw, "_bn0": block.bn1, "_bn1": block.bn2}
            layers |= {"_project_conv": block.conv_pwl, "_bn2": block.bn3}
        else:
            layers |= {"_bn1": block.bn1, "_project_conv": block.conv_pw, "_bn2": block.bn2}
        theirs |= {f"_blocks.{i}.{name}": layer for name, layer in layers.items()}
    state = {f"{name}.{key}": value for name, layer in theirs.items() for key, value in layer.state_dict().items()}
    renamed = timm_names(state, network)
    assert renamed.keys() == network.state_dict().keys()
    assert all(renamed[name] is not None and torch.equal(renamed[name], x) for name, x in network.state_dict().items())


def test_weights_of_another_network_are_one_sentence(tmp_path):
    import timm

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    backbone = timm.create_model("test_resnet", num_classes=0)
    for name in ("other.safetensors", "broken.pth"):
        with pytest.raises(CondmixError, match=f"{name} does not hold the weights of ResNet") as error:
            load_backbone(backbone, tmp_path / name)
        assert "\n" not in str(error.value)
    surplus = save_tiny_backbone(tmp_path / "image.safetensors").state_dict() | {"extra.weight": torch.zeros(1)}
    save_file(surplus, tmp_path / "more.safetensors")
    with pytest.raises(CondmixError, match="also has extra.weight"):
        load_backbone(timm.create_model("test_efficientnet", num_classes=0), tmp_path / "more.safetensors")


def test_a_network_without_its_classifier_and_one_that_timm_lacks(tmp_path):
    made = save_tiny_backbone(tmp_path / "image.safetensors")
    pictures = torch.rand(2, 3, 32, 32)
    network = open_backbone("test_efficientnet", tmp_path / "image.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(network(pictures), made(pictures))
    with pytest.raises(CondmixError, match='timm has no model "tf_efficientnet_lite9"; near to it are tf_efficientnet'):
        open_backbone("tf_efficientnet_lite9", tmp_path / "image.safetensors")
