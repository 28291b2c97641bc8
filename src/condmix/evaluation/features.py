"""Pictures -> feature vectors, in the spaces in which sets of pictures are compared.

A Fréchet distance is called FID only in Inception's space, with pytorch-fid's weights; elsewhere its name carries the
features (condmix.metrics.frechet), since the numbers of two spaces have nothing to do with each other.
"""
# B batch, S image size, F features

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from condmix import CondmixError
from condmix.evaluation.judges import Judge
from condmix.settings.schema import Backbone

INCEPTION_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d"  # its beginning, as the file's name says


class Features:
    """A feature space: `name` enters metrics' names, `id` (with the weights' hash) the keys of cached statistics."""

    name: str
    id: str

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, S, S, 3) uint8 -> features (B, F) float32."""
        raise NotImplementedError


class Inception(Features):
    """The pooled features of pytorch-fid's InceptionV3, F = 2048, preprocessed as its own code does."""

    name = "inception"

    def __init__(self, weights: str | Path | None = None, device: str | torch.device = "cpu"):
        """`weights`: pytorch-fid's file; by default the one in torch's cache, downloaded where it is absent."""
        path = Path(weights) if weights else _inception_weights()
        sha256 = _sha256(path)
        check_inception(path, sha256)
        self.id = f"inception sha256:{sha256}"
        network = fid_inception()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        network.fc = nn.Identity()  # what is left then returns the pooled features
        self._network = network.eval().to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        x = images.to(self._device).permute(0, 3, 1, 2).float() / 255
        x = functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        return self._network(2 * x - 1)


def check_inception(path: Path, sha256: str) -> None:
    """CondmixError unless the file of this sha256 holds the weights that FID is defined by."""
    if not sha256.startswith(INCEPTION_SHA256):
        raise CondmixError(
            f"{path} is not pytorch-fid's Inception (its sha256 begins with {sha256[:8]}, not "
            f"{INCEPTION_SHA256}), so its distances would not be FIDs; get {INCEPTION_URL}"
        )


class JudgeFeatures(Features):
    """What a judge's heads read; F is 128 for a judge trained here, 64 for the ResNet-56."""

    name = "judge"

    def __init__(self, judge: Judge):
        self.id = f"judge sha256:{judge.sha256}"
        self._judge = judge

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self._judge.features(images)


class ClipFeatures(Features):
    """CLIP's image vectors, as its projection leaves them, not normalised; F is CLIP's width.

    Pictures are resized and normalised as CLIP asks for, but in batches of tensors and not one by one through PIL,
    whose rounding to 8 bits after resizing is left out.
    """

    name = "clip"

    def __init__(self, folder: Path, device: str | torch.device = "cpu"):
        from condmix.clip.folder import load_clip

        clip = load_clip(folder, str(device))
        wanted = clip.model.visual.preprocess_cfg
        size = wanted["size"]
        self.id = clip.id
        self._model = clip.model
        mode = "bilinear" if wanted["interpolation"] == "bilinear" else "bicubic"  # as open_clip reads it
        self._prepared = Prepared((size, size) if isinstance(size, int) else tuple(size), mode, wanted, device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self._model.encode_image(self._prepared(images)).float()


class TimmFeatures(Features):
    """What a network of timm hands to its classifier; pictures are prepared as for `ClipFeatures`.

    `setting` is where `settings` stand, by default embed.timm.<name>.
    """

    def __init__(self, name: str, settings: Backbone, device: str | torch.device = "cpu", setting: str = ""):
        from condmix.clip.backbone import open_backbone

        self.name = name
        shown = {"mean": settings.mean, "std": settings.std}
        self.id = f"timm {settings.model} sha256:{settings.weights.sha256} at {settings.image_size} {shown}"
        weights = settings.weights.verified(f"{setting or f'embed.timm.{name}'}.weights")
        self._model = open_backbone(settings.model, weights, device)
        self._prepared = Prepared((settings.image_size,) * 2, "bicubic", shown, device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self._model(self._prepared(images)).float()


class Prepared:
    """Images (B, S, S, 3) uint8 -> (B, 3, *size), resized where they have another size, minus mean, over std."""

    def __init__(self, size: tuple[int, ...], mode: str, pixels: Mapping[str, Any], device: str | torch.device):
        self._size, self._mode, self._device = size, mode, device
        self._mean, self._sd = (torch.tensor(pixels[key], device=device)[:, None, None] for key in ("mean", "std"))

    def __call__(self, images: Tensor) -> Tensor:
        x = images.to(self._device).permute(0, 3, 1, 2).float() / 255
        if x.shape[-2:] != self._size:
            x = functional.interpolate(x, self._size, mode=self._mode, antialias=True).clamp(0, 1)
        return (x - self._mean) / self._sd


def extractors(
    names: Sequence[str],
    judge: Judge | None,
    clip: Path,
    inception: str | Path | None = None,
    device: str | torch.device = "cpu",
    timm: Mapping[str, Backbone] | None = None,
) -> list[Features]:
    """The feature spaces of these names; `clip` is a CLIP's folder, `inception` as in `Inception`."""
    known: dict[str, Callable[[], Features]] = {
        "clip": lambda: ClipFeatures(clip, device),
        "inception": lambda: Inception(inception, device),
        "judge": lambda: _judge_features(judge),
        **{name: partial(TimmFeatures, name, one, device) for name, one in (timm or {}).items()},
    }
    for name in names:
        if name not in known:
            raise CondmixError(f'no features "{name}"; found: {", ".join(known)}')
    return [known[name]() for name in names]


def _judge_features(judge: Judge | None) -> JudgeFeatures:
    if judge is None:
        raise CondmixError(
            "the features judge were asked for, but this data has no judge, having neither attributes "
            "nor classes; leave them out of evaluate.features"
        )
    return JudgeFeatures(judge)


def fid_inception() -> nn.Module:
    """pytorch-fid's variant of torchvision's InceptionV3, with weights still to be loaded.

    As its `fid_inception_v3` builds it, which can't be given a file and unpickles whatever it downloads.
    """
    from pytorch_fid import inception as fid
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = fid.FIDInceptionE_1(1280)
    network.Mixed_7c = fid.FIDInceptionE_2(2048)
    return network


def _inception_weights() -> Path:
    """pytorch-fid's weights where torch caches downloads, fetched if need be."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rsplit("/", 1)[1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix=INCEPTION_SHA256)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
            raise CondmixError(
                f"the Inception weights that FID needs can't be downloaded ({error}); put {INCEPTION_URL} "
                f"at {path}, or name your copy in evaluate.inception_weights"
            ) from None
    return path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise CondmixError(
            f"no Inception weights at {path}; get {INCEPTION_URL}, or write "
            "`inception_weights: null` to have it downloaded"
        ) from None
