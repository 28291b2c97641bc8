"""The options of `condmix generate`."""

from __future__ import annotations

from collections.abc import Iterator

from condmix import shown
from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    DRAW,
    READ,
)
from malformed.tables.pictures import odd_pictures


def cases() -> Iterator[Case]:
    caption = ("--caption", "a ring")
    many: list[tuple[str, ...]] = []
    for out in (
        "x.xyz",
        "x",
        "x.svg",
        "",
        "-",
        "models",
        "models/",
        "params.yaml/x.png",
        "/proc/x.png",
        "a" * 300 + ".png",
        "x.h5",
        "x.pdf",
        "x.gif",
        "\x1b[31m.png",
        "a\rb.png",
        "new/folder/x.png",
        "x.PNG",
        "x.jpg",
        ".png",
        "/dev/full",
        "o.png/x.png",
    ):
        many.append((*caption, "--out", out))
    for option in ("--guidance", "--scale", "--n", "--steps", "--seed"):
        for value in (
            "nan",
            "inf",
            "-inf",
            "-1",
            "0",
            "1e39",
            "1e300",
            "x",
            "",
            "1.5",
            str(2**63),
            str(2**64),
            "1e-320",
        ):
            if option in ("--n", "--steps") and value in (str(2**63), str(2**64)):
                continue  # may be what is wanted, of a machine of another kind
            many.append((*caption, option, value))
    for value in ("1000000", "100000"):
        many.append((*caption, "--scale", value))
        many.append((*caption, "--n", value, "--scale", "10000"))
    many += [(*caption, "--n", str(10**30)), (*caption, "--steps", "5000"), (*caption, "--steps", str(10**30))]
    for weight in (
        "caption_1=1e300",
        "caption_1=nan",
        "caption_1=inf",
        "caption_1=",
        "caption_1",
        "=1",
        "nothing=1",
        "image=1",
        "caption_1=1=2",
        "caption_1=-1",
        "",
        "caption_1=1e39",
        "caption_1=0",
    ):
        many.append((*caption, "--weight", weight))
    many.append((*caption, "--weight", "caption_1=1", "--weight", "caption_1=2"))
    for interval in (("0.8", "0.2"), ("nan", "1"), ("-1", "1"), ("0", "2"), ("x", "1"), ("inf", "inf"), ("0.5", "0.5")):
        many.append((*caption, "--interval", *interval))
    # no operating system passes a NUL in an argument; bytes that are not UTF-8 come as lone surrogates
    for text in ("", "  ", "\n", "\r", "a\rb", "x" * 100_000, "\udcff", "\x1b[31m", "\u200b"):
        many.append(("--caption", text))
        many.append(("--negative", text, *caption))
        many.append(("--variant", "class_v1", "--prompt", text))
    for variant in ("judge", "clip", "prior", "", "..", "../models/experiment", "a\rb", "x" * 300, "class_v9"):
        many.append((*caption, "--variant", variant))
    for name in ("", " ", "rign", "RING", "\udcff", "a\rb", "\x1b[31m", "5"):
        many.append(("--variant", "class_v1", "--class", name))
    for sampler in ("", "ddimm", "__init__", "../x", "_x", "DDIM"):
        many.append((*caption, "--sampler", sampler))
        many.append((*caption, "--spacing", sampler))
    many += [
        (*caption, *caption, *caption, *caption),
        ("--prior",),
        ("--variant", "class_v1", "--prior"),
        ("--variant", "class_v1", "--prompt", "a", "--image", "picture.png"),
        ("--prompt", "a"),
        ("--variant", "class_v1", "--image", "nothing.png"),
        ("--variant", "class_v1", "--image", "params.yaml"),
        ("--variant", "class_v1", "--image", "models"),
        ("--variant", "class_v1", "--image", ""),
        ("--variant", "class_v1", "--image", "a\rb.png"),
        ("--variant", "class_v1", "--image", "\x1b[31m.png"),
        ("--variant", "class_v1", "--image", "/dev/zero"),
        ("--variant", "class_v1", "--image", "/dev/null"),
        ("--negative", "a", "--negative", "b", "--negative", "c"),
        ("--nonsense",),
        ("extra",),
        ("--caption",),
    ]
    fine = {
        "x.gif",
        "x.pdf",
        "new/folder/x.png",
        "x.PNG",
        "x.jpg",
        "\x1b[31m.png",
        "a\rb.png",
        "o.png/x.png",
        "0",
        "-1",
        "1",
        "1.5",
        "1e-320",
        "caption_1=-1",
        "caption_1=0",
        str(2**63),
        "x" * 100_000,
        "\x1b[31m",
        "10000",
        "a\rb",
    }
    for arguments in many:
        what = " ".join(repr(argument)[1:-1][:40] for argument in arguments)
        allowed = "a valid value" if fine & set(arguments) else ""
        # the sentence names an option as --x, or as x, a picture by its file
        named = tuple(shown(word.strip("-")) for word in arguments if word.startswith("--") or "--image" in arguments)
        yield Case(
            "generate", what, "ready", lambda _: None, ((*DRAW, *arguments),), named=named, allowed=allowed,
            compared=False,
        )  # fmt: skip
    for what, (ending, content) in odd_pictures().items():
        yield Case(
            "generate",
            f"--image {what}",
            "ready",
            lambda project, ending=ending, content=content: (project / f"odd{ending}").write_bytes(content),
            ((*DRAW, "--variant", "class_v1", "--image", f"odd{ending}"),),
            f"odd{ending}",
            (f"odd{ending}",),
            READ,
            compared=False,
        )
    for what, place in d.places().items():
        yield Case(
            "generate",
            f"--image {what}",
            "ready",
            lambda project, place=place: place(project / "i.png"),
            ((*DRAW, "--variant", "class_v1", "--image", "i.png"),),
            "i.png",
            ("i.png",),
            compared=False,
        )
