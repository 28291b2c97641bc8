"""Where a profile's files lie."""

from __future__ import annotations

from pathlib import Path


class Paths:
    """Where a profile's files lie, relative to the repository's root."""

    def __init__(self, root: Path, profile: str):
        self.root = root
        data = root / "data" / profile
        self.archives = data / "archives"
        self.partial = data / "partial"
        self.dataset = data / "dataset"
        self.captions = data / "captions"
        self.generated = data / "generated"
        self.embeddings = data / "embeddings"
        self._packed = data / "packed"
        self._drawn = data / "drawn"
        self.models = root / "models"
        self.clip = self.models / "clip"
        self.judge = self.models / "judge"
        self.prior = self.models / "prior"
        self.metrics = root / "metrics"
        self.statistics = data / "statistics"
        self.report = self.metrics / "report"
        self.params_ok = root / "data" / "params.ok"

    def packed(self, variant: str) -> Path:
        """Folder of a variant's packed perspectives."""
        return self._packed / variant

    def model(self, variant: str) -> Path:
        """Folder of a trained variant."""
        return self.models / variant

    def drawn(self, variant: str) -> Path:
        """Folder in which the processes of an evaluation leave their pictures for the one that measures them."""
        return self._drawn / variant

    def details(self, variant: str) -> Path:
        """Folder of a variant's evaluation in full: rows, sweep, sample pictures."""
        return self.metrics / "details" / variant

    def headline(self, variant: str) -> Path:
        """The few figures of a variant that DVC and MLflow show as its metrics."""
        return self.metrics / "headline" / f"{variant}.json"

    def samples(self, variant: str) -> Path:
        """Pictures of a variant for the first held-out conditions, as one picture."""
        return self.metrics / "samples" / f"{variant}.png"
