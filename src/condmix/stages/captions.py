"""Stage captions: archives -> captions/<split>.json: what people wrote, or class templates where they wrote nothing.

Pictures of which neither is known have no captions; they train what sees pictures alone, as `pseudo` does.

The file holds {"captions": [[text, ...], ...], "sources": [["human" | "template", ...], ...]}, one row per picture
in the order of the data set's ids. No picture is decoded. Data that some later stage cannot use stop the pipeline here.
"""

from condmix import CondmixError
from condmix.data.captions import collect, count, write_captions
from condmix.data.requirements import lacking
from condmix.datasets import SPLITS
from condmix.settings import load
from condmix.settings.schema import Params


def main(params: Params) -> None:
    """Writes {train,test}.json to `params.paths.captions`."""
    name = params.data.dataset
    data = load.plugin("datasets", name)(params.paths.archives, params.data.world)
    rows = {split: collect(data, split, params.captions.templates, name) for split in SPLITS}
    holds = {split: count(data, captions, data.labels(split)) for split, (captions, _) in rows.items()}
    for sentence in lacking(params, **holds):
        raise CondmixError(sentence)
    for split, (captions, source) in rows.items():
        write_captions(params.paths.captions / f"{split}.json", captions, source)
