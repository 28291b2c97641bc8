"""How often a sampler can show a picture's official class that is told what several people saw in it (CIFAR-10N).

    python benchmarks/people_ceiling.py data/cifar10n/archives [--results metrics/experiments/cifar10n/results.csv]

For the first k people of each held-out picture, from how often the training pictures with those words are of each
class: `drawn` is the mean probability of the right class, which a sampler reaches that guesses as the training data
have it, and `likeliest` the share of the pictures whose likeliest class is right, the most that anybody reaches who
sees the words alone. Neither depends on who said what: `counted` is what three people said, without their order.

With the grid's results: which share of what three people could add do the models' pictures show? A model that is told
the official label draws, and a judge recognises, only some of the classes. So what an experiment gains over one person
is divided by what the official label gains over one person, and that by the same ratio of the ceilings:

    share = ((a - a_one) / (a_official - a_one)) / ((c - c_one) / (1 - c_one))

a: accuracy by a judge, under one seed; c: ceiling, `drawn` or `likeliest`. 100% is all that the words hold.
"""

import csv
from collections import Counter, defaultdict
from pathlib import Path

import click
import numpy as np

from condmix.datasets.cifar10n import Cifar10n
from condmix.experiments.statistics import paired_t

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


def shares(told: list[float], one: list[float], official: list[float], ceiling: float, of_one: float) -> np.ndarray:
    """(S,): the share of a ceiling's gain that an experiment shows under each of S seeds (the formula above)."""
    gain = (np.array(told) - one) / (np.array(official) - one)
    return gain / ((ceiling - of_one) / (1 - of_one))


@click.command()
@click.argument("archives", type=click.Path(exists=True, path_type=Path))
@click.option("--results", type=click.Path(exists=True, path_type=Path), help="results.csv of the grid cifar10n.")
def main(archives: Path, results: Path | None) -> None:
    data = Cifar10n(archives, {"held_out_percent": 10})
    words = {split: data.captions(split) for split in ("train", "test")}
    labels = {split: data.labels(split).tolist() for split in ("train", "test")}
    print(f"{len(words['train'])} training pictures, {len(words['test'])} held out")
    found = {}
    for name, people, ordered in (("one", 1, True), ("two", 2, True), ("three", 3, True), ("counted", 3, False)):
        known = {split: told(words[split], people, ordered) for split in words}
        found[name] = drawn, likeliest = ceilings(known["train"], labels["train"], known["test"], labels["test"])
        print(f"{name:<8} drawn {drawn:.1%}  likeliest {likeliest:.1%}")
    for judge in ("class_accuracy", "attribute_accuracy_probe.class") if results else ():
        accuracy: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for row in csv.DictReader(results.open()):
            accuracy[row["experiment"]][int(row["seed"])] = float(row[judge])
        for experiment, of in (("three_people", "three"), ("counted", "counted")):
            seeds = sorted(accuracy[experiment].keys() & accuracy["one_person"].keys() & accuracy["official"].keys())
            values = [[accuracy[name][seed] for seed in seeds] for name in (experiment, "one_person", "official")]
            for place, ceiling in enumerate(("drawn", "likeliest")):
                by_seed = shares(*values, found[of][place], found["one"][place])
                line = ", ".join(f"{share:.0%}" for share in by_seed)
                if len(seeds) > 1:
                    low, high, _ = paired_t(by_seed)
                    line = f"{by_seed.mean():.0%} ({low:.0%} to {high:.0%}); by seed {line}"
                print(f"{judge}: {experiment} shows of the gain by '{ceiling}' {line}")


if __name__ == "__main__":
    main()
