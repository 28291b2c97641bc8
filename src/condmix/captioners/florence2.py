"""A picture -> captions of three lengths from one model, Florence-2 (Xiao et al. 2024, arXiv:2311.06242).

The weights must be in the format of transformers itself, as florence-community/Florence-2-base has them: Microsoft's
own repositories bring code along, which is not run here.
"""

from condmix.captioners._transformers import TransformersCaptioner


class Florence2(TransformersCaptioner):
    """A prompt is one of the model's tasks, or a question."""

    model_class, model_type = "Florence2ForConditionalGeneration", "florence2"
    prompts = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
