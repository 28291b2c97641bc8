"""Stage: the embedding caches -> one folder per variant with exactly the perspectives that it reads.

A variant's training depends on its own folder alone, so a caption added elsewhere retrains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from condmix import CondmixError, pipeline
from condmix.data.embeddings import mean, numbered, read_cache, read_centre, read_metadata
from condmix.files.artifacts import digest_of_file, write_checked_json
from condmix.files.atomic import replacing_folder
from condmix.settings.load import Params, plugins, unknown
from condmix.settings.perspectives import another, misled, parse
from condmix.settings.variants import Variant, resolve

SPLITS = ("train", "test")
PROMPT = "caption_1"  # the text whose vector replaces that of image or pseudo when a model is prompted


def main(params: Params, variant: str) -> None:
    """Write data/<profile>/packed/<variant>/{train,test}.safetensors and variant.json."""
    chosen = resolve(variant, params.fusion, params.perspectives)
    check_perspectives(chosen, params.profile, params.paths.embeddings)
    with replacing_folder(params.paths.packed(variant)) as part:
        for split in SPLITS:
            tensors = pack_split(chosen, params.paths.embeddings / split, split, params.mixed_any)
            centres = {f"{source}.centre": c for source, c in read_centres(chosen, params.paths.embeddings / split)}
            save_file(tensors | centres, part / f"{split}.safetensors")
        sums = {split: digest_of_file(part / f"{split}.safetensors") for split in SPLITS}
        card = describe(chosen, params.paths.embeddings / SPLITS[0]) | {"sha256": sums}
        write_checked_json(part / "variant.json", card)


def check_perspectives(variant: Variant, profile: str, embeddings: Path) -> None:
    """CondmixError where the embeddings lack a perspective that the variant reads."""
    present = sorted(path.stem for path in (embeddings / SPLITS[0]).glob("[!.]*.safetensors"))
    for name in variant.perspectives:
        perspective = parse(name)
        if not {*perspective.sources, *(["generated_1"] if perspective.mixed else [])} <= set(present):
            raise CondmixError(
                f'profile {profile} has no perspective "{name}" (variant {variant.name} needs it); '
                f"it has: {', '.join(present) or 'none (run dvc repro embed)'}"
            )


def pack_split(variant: Variant, folder: Path, split: str, weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """{"p": (N, d_p) fp16, "p.present": (N,) bool} per perspective p.

    In training, `caption_any` has all K captions, (N, K, d_p) and (N, K), of which each step draws one, and further
    ones for `caption_any_2`, ..., which have no tensors of their own. `mixed_any` has the generated captions after them
    and, with `weights` of true and generated ones, how likely each is as "p.odds" (N, K).
    The test split of a variant that sees images has "prompt" besides: words in the image's place. It is
    left out where the data have no caption at all. In that split `pseudo` is the same words, absent without them, and
    nothing is wrong at times: how a model takes that is computed from pictures whose source is right, and wrong.
    """
    tensors = {}
    for perspective in map(parse, variant.perspectives):
        if perspective.place and split == "train":
            if perspective.place > 1:
                continue
            sources = [*numbered(folder, "caption"), *(numbered(folder, "generated") if perspective.mixed else ())]
            vectors, present = zip(*(_read(folder, source, split) for source in sources), strict=True)
            packed = torch.stack(vectors, dim=1), torch.stack(present, dim=1)
            if perspective.mixed and weights is not None:
                written = torch.tensor([parse(source).kind == "generated" for source in sources])
                tensors[f"{perspective.name}.odds"] = odds(packed[1], written, *weights)
                packed = packed[0], tensors[f"{perspective.name}.odds"] > 0
        elif perspective.kind == "pseudo" and split == "test":
            packed = _words(folder, split)
        else:
            vectors, present = zip(*(_read(folder, source, split) for source in perspective.sources), strict=True)
            packed = vectors[0], present[0]
            if perspective.merge == "mean":
                everything = torch.stack(present).all(dim=0)
                packed = mean(torch.stack(vectors, dim=1)).half() * everything[:, None], everything
        if perspective.of_another or perspective.wrong and split == "train":
            others = torch.from_numpy(another(len(packed[0])))
            if perspective.wrong:
                wrong = torch.from_numpy(misled(len(others), perspective.wrong))
                others = others.where(wrong, torch.arange(len(others)))
            packed = packed[0][others], packed[1][others]
        tensors[perspective.name], tensors[f"{perspective.name}.present"] = packed
    if split == "test" and "image" in variant.perspectives and (folder / f"{PROMPT}.safetensors").exists():
        tensors["prompt"], tensors["prompt.present"] = _read(folder, PROMPT, split)
    counts = {name: len(rows) for name, rows in tensors.items() if not name.endswith((".present", ".odds"))}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise CondmixError(f"the {split} embeddings count different images ({listed}): dvc repro embed")
    return tensors


def odds(present: Tensor, written: Tensor, true: float, generated: float) -> Tensor:
    """Probabilities (N, K) of the captions that are present (N, K), where `written` (K,) marks the generated ones.

    A picture's true captions together have the weight `true` and its generated ones `generated`, each as much as the
    others of its kind. A picture with captions of one kind only draws from these.
    """
    shares = torch.zeros(present.shape)
    for kind, weight in ((~written, true), (written, generated)):
        ours = present & kind
        shares += weight * ours / ours.sum(dim=1, keepdim=True).clamp(min=1)
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def _read(folder: Path, source: str, split: str) -> tuple[Tensor, Tensor]:
    return read_cache(folder / f"{source}.safetensors", {"perspective": source, "split": split})[:2]


def read_centres(variant: Variant, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(source, c (d,) float32) of what was subtracted from the vectors that the variant reads, or is prompted with."""
    parsed = list(map(parse, variant.perspectives))
    sources = {source: None for perspective in parsed for source in perspective.sources}
    if any(perspective.kind in ("image", "pseudo") for perspective in parsed):
        sources |= {PROMPT: None}
    for source in sources:
        path = folder / f"{source}.safetensors"
        if path.exists() and (centre := read_centre(path)) is not None:
            yield source, centre


def _words(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """The text vectors that prompt a model; all absent where the data have no caption at all."""
    if (folder / f"{PROMPT}.safetensors").exists():
        return _read(folder, PROMPT, split)
    vectors, present = _read(folder, "image", split)
    return torch.zeros_like(vectors), torch.zeros_like(present)


def describe(variant: Variant, folder: Path) -> dict[str, Any]:
    """The card: what the variant is, the CLIP's width D and identity, and the hash of the fusion's code.

    A perspective that is not named after what it is made of in evaluation has `of` besides: "image", "caption" or
    "class".
    """
    image = read_metadata(folder / "image.safetensors")
    perspectives = []
    for perspective in map(parse, variant.perspectives):
        metadata = read_metadata(folder / f"{perspective.sources[0]}.safetensors")
        of = "caption" if perspective.kind == "pseudo" else metadata.get("of")
        perspectives.append({"name": perspective.name, "dim": int(metadata["dim"]), **({"of": of} if of else {})})
    centres = {source: len(centre) for source, centre in read_centres(variant, folder)}
    return {
        "variant": variant.name,
        "fusion": variant.fusion,
        "fusion_sha256": fusion_sha256(variant.fusion),
        "perspectives": perspectives,
        **({"centres": centres} if centres else {}),
        "dim": int(image["dim"]),
        "encoder": image["encoder"],
    }


def fusion_sha256(name: str) -> str:
    """Hash of the code that makes a fusion: its own file and what that imports."""
    if name not in plugins("fusions"):
        raise CondmixError(unknown("fusion", name, plugins("fusions")))
    return pipeline.code_sha256(pipeline.closure(f"fusions/{name}.py", pipeline.NEUTRAL))
