"""Kernel distance in each feature space (Binkowski et al. 2018, arXiv:1801.01401): KID in Inception's."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names
from condmix.metrics._spaces import kernel_name


class KernelDistance(Metric):
    order = 30
    pictures = Pictures.HEADLINE
    places = Place.SETS
    higher_is_better = False
    explanation = (
        "Squared maximum mean discrepancy of features under the kernel (x·y / F + 1)³, unbiased: of the same mean at "
        "any n, and maybe below 0; KID in Inception's features"
    )
    blind_to = "whether a picture shows what it was conditioned on; copies of training pictures"

    def measures(self, files):
        return [self.measure(kernel_name(name), features=name) for name in feature_names(files)]

    def compute_in(self, space, drawn):
        from condmix.evaluation.distances import kernel_distance

        return {kernel_name(space.name): round(kernel_distance(space.real, space.drawn), 6)}
