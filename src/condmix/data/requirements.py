"""What the pipeline needs of a data set, as sentences, so that it stops before anything trains.

The stage `captions` and `condmix data check` ask the same questions of the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from condmix.settings.perspectives import Perspective, parse
from condmix.settings.schema import Params
from condmix.settings.variants import resolve

FEWEST = 2  # pictures of a split: batch normalisation in training, a covariance in evaluation


@dataclass(frozen=True)
class Holds:
    """What one split holds, in numbers."""

    pictures: int
    captioned: int  # pictures with a caption
    most_captions: int  # of one picture
    labelled: int  # pictures whose class is known
    attributes: bool  # whether attributes are known

    def has(self, one: Perspective) -> bool:
        """Whether any picture can have this perspective. What is generated or imported is not the data set's."""
        if one.kind == "class":
            return self.labelled > 0
        if one.kind == "pseudo":  # words in evaluation
            return self.captioned > 0
        if one.kind in ("caption", "t5") and not one.mixed:
            return self.most_captions >= one.captions.stop
        return True


def lacking(params: Params, train: Holds, test: Holds) -> Iterator[str]:
    """The sentence of everything that would stop the pipeline."""
    if train.pictures < FEWEST:
        yield f"training needs at least {FEWEST} pictures, and the training split has {train.pictures}: add some"
    if test.pictures < FEWEST:
        yield (
            f"evaluation needs at least {FEWEST} test pictures, and the test split has {test.pictures}: add some, or "
            "hold out a larger share (data.world.held_out_percent)"
        )
    for name in params.variants:
        # Which fusion merges them does not matter here, and another one must not make the stage captions run again.
        perspectives = resolve(name, "", params.perspectives).perspectives
        yield from _lacking_perspectives(name, perspectives, train, test)
    if not (params.clip.pretrained or params.clip.weights):
        if not train.captioned:
            yield "no training picture has a caption to train a CLIP on: give clip.pretrained"
        elif train.captioned < FEWEST:
            yield f"a CLIP is trained on at least {FEWEST} captioned pictures, and 1 has one: give clip.pretrained"
    if params.generated is not None and params.generated.training is not None and not train.captioned:
        yield "no training picture has a caption to train a captioner on: set generated to null"
    if params.prior is not None and not train.captioned:
        yield "no training picture has a caption to train a prior on: set prior to null"
    elif params.prior is not None and params.prior.clusters > train.pictures:
        clusters, pictures = params.prior.clusters, train.pictures
        yield f"prior.clusters is {clusters:,}, but there are {pictures:,} training pictures: lower it"
    elif params.prior is not None and test.captioned < FEWEST:
        yield (
            f"a prior is measured on at least {FEWEST} captioned test pictures, and the test split has "
            f"{test.captioned}: add some, or set prior to null"
        )
    if "judge" in params.evaluate.features and not train.attributes and train.labelled < FEWEST:
        yield (
            f"evaluate.features has judge, which learns from the classes of at least {FEWEST} training pictures, and "
            f"{train.labelled} have one: leave it out of evaluate.features"
        )


def _lacking_perspectives(variant: str, perspectives: tuple[str, ...], train: Holds, test: Holds) -> Iterator[str]:
    parsed = [parse(name) for name in perspectives]
    for one in parsed:
        if one.kind == "pseudo" or train.has(one):  # pseudo: made from the picture in training
            continue
        holder = "no training picture has" if test.has(one) else "the data does not have"
        yield f'variant {variant} reads "{one.name}", which {holder}: leave it out in params.yaml'
    if "pseudo" in perspectives and not test.captioned:
        yield f"variant {variant} reads pseudo, but no test picture has a caption, so it can't be evaluated: add some"
    elif not any(map(test.has, parsed)) and any(map(train.has, parsed)):
        yield (
            f"variant {variant} reads {', '.join(perspectives)}, but no test picture has any of that, so it can't be "
            "evaluated: give test pictures what training pictures have"
        )


def doubtful(params: Params, train: Holds, test: Holds) -> dict[str, list[str]]:
    """What the pipeline goes on without -> where."""
    found: dict[str, list[str]] = {}
    for name in params.variants:
        parsed = [parse(one) for one in resolve(name, "", params.perspectives).perspectives]
        for one in parsed:
            if train.has(one) and not test.has(one) and any(map(test.has, parsed)):
                found.setdefault("perspective that no test picture has, so that it is evaluated without", []).append(
                    f"{one.name} of variant {name}"
                )
    return found
