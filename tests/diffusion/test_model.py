"""The conditional model: what joins maps, time, fusion and U-Net."""

import pytest
import torch

from condmix import CondmixError
from condmix.diffusion.model import Architecture, ConditionalModel, load_model, save_model
from condmix.settings.load import plugins

SMALL = {"dim": 12, "image_size": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
PERSPECTIVES = {"caption_1": 12, "caption_2": 12}


def model(fusion: str, perspectives=PERSPECTIVES, **settings) -> ConditionalModel:
    torch.manual_seed(0)
    return ConditionalModel(Architecture(fusion=fusion, perspectives=perspectives, **SMALL, **settings))


def size(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    x, views = torch.randn(3, 3, 8, 8, generator=generator), torch.randn(3, 2, 12, generator=generator)
    return x, torch.tensor([0, 400, 999]), views, torch.ones(3, 2, dtype=torch.bool)


@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_views_reach_the_prediction_through_every_fusion(fusion, inputs):
    x, t, views, mask = inputs
    net = model(fusion)
    with torch.no_grad():
        for parameter in net.parameters():  # those that start at zero too
            parameter.normal_(std=0.2)
        nothing = net(x, t, views, torch.zeros_like(mask))
        for p in range(2):
            changed = views.clone()
            changed[:, p] = -changed[:, p]
            assert not torch.allclose(net(x, t, views, mask), net(x, t, changed, mask))
            assert torch.equal(net(x, t, changed, torch.zeros_like(mask)), nothing)


@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_sizes_match_to_less_than_one_hidden_unit(fusion):
    target = 60_000
    width = model(fusion).fusion.time_width
    assert 0 <= target - size(model(fusion, match_parameters=target)) < 2 * width + 1


def test_a_widened_model_starts_as_the_same_model(inputs):
    plain, wide = model("concat"), model("concat", match_parameters=60_000)
    with torch.no_grad():
        plain.unet.conv_out.weight.normal_()
    missing = wide.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("widening.") for name in missing)
    assert torch.equal(wide(*inputs), plain(*inputs)) and plain(*inputs).any()


def save(folder, net, architecture):
    """A finished model's folder, whose card has this architecture."""
    card = {"variant": "experiment", "fusion": "concat", "perspectives": "", "encoder": "", "class_names": []}
    diffusion = {"diffusion.schedule": "cosine", "diffusion.steps": 10, "diffusion.prediction": "v", "train.ema": 0.9}
    save_model(folder, net.state_dict(), card | diffusion | {"architecture": architecture})


def test_models_of_before_centres_were_saved_load_and_have_none(tmp_path):
    plain = model("concat")
    centred = model("concat", centres={"caption_1": 12})
    assert set(centred.state_dict()) - set(plain.state_dict()) == {"centres.caption_1"}
    architecture = {name: value for name, value in vars(plain.architecture).items() if name != "centres"}
    save(tmp_path, plain, architecture)
    loaded, _ = load_model(tmp_path)
    assert not loaded.centres.state_dict() and set(loaded.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"depth": 3}, "it holds architecture.depth, which this version of condmix does not know"),
        (
            {"perspectives": {"Caption 1": 12}},
            'architecture.perspectives.Caption 1: no perspective is called "Caption 1"',
        ),
        ({"fusion": "addtive"}, 'no fusion "addtive"; found: '),
        ({"match_parameters": 10}, "model.match_parameters is 10, but "),
        ({"attention": [3]}, "attention at size 3, but the levels have sizes [8, 4]"),
    ],
)
def test_a_card_that_describes_no_network_is_refused(tmp_path, changed, reason):
    net = model("concat")
    save(tmp_path / "concat", net, vars(net.architecture) | changed)
    with pytest.raises(CondmixError) as error:
        load_model(tmp_path / "concat")
    card = tmp_path / "concat" / "model.json"
    assert str(error.value).startswith(f"{card} is damaged ({reason}")
    assert str(error.value).endswith("delete it and run dvc repro train@concat")


def test_a_size_that_is_passed_already_is_refused():
    with pytest.raises(CondmixError, match="match_parameters is 1,000, but with fusion concat of caption_1"):
        model("concat", match_parameters=1_000)
