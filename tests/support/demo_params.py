"""A small demo world for the stage embed, and a process that dies of it."""

import os
import signal
from types import SimpleNamespace

import torch

from clip_helpers import colour_params, save_tiny_clip, write_all_captions
from condmix.datasets.demo import Demo
from condmix.stages import embed

WORLD = {"train": 50, "test": 20, "seed": 1}


def demo_params(root):
    """A small demo world with its captions and a tiny CLIP: unlike `Colours`, new processes can open it."""
    params = colour_params(root)
    params.data = SimpleNamespace(dataset="demo", world=WORLD)
    (params.paths.archives / "data.bin").unlink()
    Demo.draw(params.paths.archives, WORLD)
    write_all_captions(params, Demo(params.paths.archives, WORLD))
    save_tiny_clip(params.paths.clip)
    return params


def embed_and_die(params, shard, whole):
    """Run the stage with shards of so many items; the process kills itself in the midst of the one after `whole`."""
    encode_shard, begun = embed.encode_shard, []

    def last(count):
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(job, rows, batch_size, work, *progress):
        if progress:  # or it is the trial
            begun.append(rows)
            progress = (last,) if len(begun) > whole else progress
        return encode_shard(job, rows, batch_size, work, *progress)

    torch.set_num_threads(1)
    embed.SHARD, embed.encode_shard = shard, counted
    embed.main(params)
