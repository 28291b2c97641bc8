"""How often a sampler can show a picture's official class that is told what several people saw in it (CIFAR-10N).

    python benchmarks/people_ceiling.py data/cifar10n/archives

For the first k people of each held-out picture, from how often the training pictures with those words are of each
class: `drawn` is the mean probability of the right class, which a sampler reaches that guesses as the training data
have it, and `likeliest` the share of the pictures whose likeliest class is right, the most that anybody reaches who
sees the words alone. Neither depends on who said what: `counted` is what three people said, without their order.
"""

from collections import Counter, defaultdict
from pathlib import Path

import click

from condmix.datasets.cifar10n import Cifar10n

Told = tuple[str, ...]


def told(words: list[list[str]], people: int, ordered: bool) -> list[Told]:
    """What is known of each picture."""
    return [tuple(row[:people] if ordered else sorted(row[:people])) for row in words]


def ceilings(train: list[Told], train_labels: list[int], test: list[Told], labels: list[int]) -> tuple[float, float]:
    """Means over the test pictures: the right class's probability, and whether it is the likeliest one."""
    seen: defaultdict[Told, Counter] = defaultdict(Counter)
    for words, label in zip(train, train_labels, strict=True):
        seen[words][label] += 1
    drawn = likeliest = 0.0
    for words, label in zip(test, labels, strict=True):
        counts = seen[words]
        drawn += counts[label] / max(counts.total(), 1)
        likeliest += counts.total() > 0 and counts.most_common(1)[0][0] == label
    return drawn / len(test), likeliest / len(test)


@click.command()
@click.argument("archives", type=click.Path(exists=True, path_type=Path))
def main(archives: Path) -> None:
    data = Cifar10n(archives, {"held_out_percent": 10})
    words = {split: data.captions(split) for split in ("train", "test")}
    labels = {split: data.labels(split).tolist() for split in ("train", "test")}
    print(f"{len(words['train'])} training pictures, {len(words['test'])} held out")
    for name, people, ordered in (("one", 1, True), ("two", 2, True), ("three", 3, True), ("counted", 3, False)):
        known = {split: told(words[split], people, ordered) for split in words}
        drawn, likeliest = ceilings(known["train"], labels["train"], known["test"], labels["test"])
        print(f"{name:<8} drawn {drawn:.1%}  likeliest {likeliest:.1%}")


if __name__ == "__main__":
    main()
