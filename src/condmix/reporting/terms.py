"""What the words mean that the pages explain where they first stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from condmix.metrics import Measure

REFERENCE = "a fixed reference"
VARIANTS = {
    "class_v1": REFERENCE,
    "class_v2": f"{REFERENCE}: class_v1 without its dense layer, in which information may get lost",
    "caption": REFERENCE,
    "experiment": "the perspectives and the fusion that params.yaml chooses",
}
FUSIONS = {  # what it makes of a picture's vectors; a fusion that is not here goes by its name
    "additive": "their sum",
    "attention": "averages of them, weighed by a query that was learned",
    "concat": "one behind the other, through a dense layer",
    "cross_attention": "tokens at which every place of the picture looks",
    "film": "scales and shifts of the time embedding",
    "gated": "their sum, each behind a gate that sees all of them",
    "mean": "their mean, through a dense layer",
    "projected": "their sum, each through a dense layer of its own",
}
CLIP = (
    "a pair of networks, one for pictures and one for texts, whose vectors lie close together where a text fits a "
    "picture (Radford et al. 2021)"
)
GUIDANCE = (
    "how far drawing is driven by the condition: with scale s a step is the unconditional one plus s times the "
    "difference that the condition makes. At s = 1 that is the plain model; above, pictures fit better and vary less"
)
ORACLE = (
    "a model that was shown the CLIP vector of the very picture that it should draw, which holds what no caption says. "
    "Its rows have seen the answer: they have no rank"
)
FRECHET = (
    "how far drawn pictures lie from real ones: the Fréchet distance between both sets' features, in the network that "
    "the name carries. 0 is alike, lower is better, and two networks' numbers don't compare. In the features of the "
    "Inception network, and only there, it is called FID"
)
FID = (
    "how far drawn pictures lie from real ones: the Fréchet distance between both sets' features in the Inception "
    "network. 0 is alike, lower is better"
)


def terms(measures: Sequence[Measure], oracle: bool) -> Iterator[tuple[str, str]]:
    """(word, what it means) of guidance, of an oracle where there is one, and of the distances among the measures."""
    yield "Guidance", GUIDANCE
    if oracle:
        yield "Oracle", ORACLE
    headings = dict.fromkeys(measure.heading for measure in measures)
    if "FID" in headings:
        yield "FID", FID
    spaces = {f"fd_{measure.features}" for measure in measures}
    if named := [heading for heading in headings if heading in spaces]:
        yield "Distance", f"{', '.join(named)}: {FRECHET}"
