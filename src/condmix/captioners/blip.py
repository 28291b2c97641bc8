"""A picture -> captions from a BLIP (Li et al. 2022, arXiv:2201.12086): Salesforce/blip-image-captioning-base."""

from condmix.captioners._transformers import TransformersCaptioner


class Blip(TransformersCaptioner):
    """A prompt is how the caption begins: "a photo of"."""

    model_class, model_type = "BlipForConditionalGeneration", "blip"
