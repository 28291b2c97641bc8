"""Captioners of transformers: a local folder, or a name on the Hugging Face hub and a revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from condmix import CondmixError
from condmix.captioners import Captioner, model_name
from condmix.clip.huggingface import explained, folder_sha256, locate, require_safetensors
from condmix.clip.weights import check_finite
from condmix.settings.schema import Content, hub_revision


class TransformersCaptioner(Captioner):
    """A model and its processor; a subclass says of which kind."""

    model_class: ClassVar[str]  # in transformers
    model_type: ClassVar[str]  # in the folder's config.json

    def __init__(self, settings: Any, device: str):
        folder, revision = locate(settings.model, settings.revision, "generated")
        self.settings = settings
        self.processor, self.model = self._load(folder, settings.precision)
        self.model.eval().to(device)
        self.folder = folder
        # so that a model that can't run fails before the work
        self.caption(self.see([np.full((64, 64, 3), 128, np.uint8)]), (settings.prompts or self.prompts)[0], 0)
        sha256 = folder_sha256(folder)
        self.facts = {"model": model_name(settings), "revision": revision, "weights_sha256": sha256}

    @classmethod
    def check(cls, settings: Any) -> None:
        super().check(settings)
        try:
            hub_revision(settings.model, settings.revision)
        except ValueError as error:
            raise CondmixError(f"generated.model: {error}") from None
        if isinstance(settings.model, Content):
            require_safetensors(settings.model.place)

    @classmethod
    def open(cls, settings: Any, folder: Any, device: str = "cpu") -> TransformersCaptioner:
        return cls(settings, device)

    def see(self, pictures: Sequence[np.ndarray]) -> list[Image.Image]:
        return [Image.fromarray(picture) for picture in pictures]

    def caption(self, seen: list[Image.Image], prompt: str, seed: int) -> list[str]:
        with explained(self.folder, f"holds a {self.model_type} that fails on pictures"):
            return self._caption(seen, prompt, seed)

    def _caption(self, seen: list[Image.Image], prompt: str, seed: int) -> list[str]:
        settings = self.settings
        text = [prompt] * len(seen) if prompt else None
        inputs = self.processor(images=seen, text=text, return_tensors="pt").to(self.model.device, self.model.dtype)
        drawn = {"do_sample": True, "top_p": settings.top_p, "top_k": 0, "temperature": settings.temperature}
        how = drawn if settings.top_p else {"do_sample": False}  # the likeliest token each time
        with torch.random.fork_rng(), torch.no_grad():  # transformers draws from the global generators
            torch.manual_seed(seed)
            tokens = self.model.generate(**inputs, num_beams=1, max_new_tokens=settings.max_tokens, **how)
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]

    def _load(self, folder: Any, precision: str) -> tuple[Any, Any]:
        """Processor and model, the weights from safetensors; CondmixError where they are not all there."""
        name = self.model_type
        try:
            import transformers
        except ImportError as error:
            raise CondmixError(f'the captioner {name} needs transformers: pip install "condmix[captioners]"') from error
        own = {"local_files_only": True, "trust_remote_code": False}
        with explained(folder, f"does not hold a {name} that transformers can load"):
            config = transformers.AutoConfig.from_pretrained(folder, **own)
            if config.model_type != name:
                raise CondmixError(f"generated.model: {folder} holds a {config.model_type} model, not {name}")
            processor = transformers.AutoProcessor.from_pretrained(folder, **own)
            model, info = getattr(transformers, self.model_class).from_pretrained(
                folder,
                **own,
                use_safetensors=True,
                dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision],
                output_loading_info=True,
            )
        if info["missing_keys"]:  # transformers draws them at random
            missing = sorted(info["missing_keys"])
            raise CondmixError(f"{folder} lacks {len(missing)} weights of its {name}, such as {missing[0]}")
        check_finite(model, folder)
        return processor, model
