"""The stage embed at scale: processes, kills, batch sizes and bf16 do not change what the caches say."""

import json
import re
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_helpers import Colours, colour_params, save_tiny_clip, use_data, write_all_captions
from condmix import CondmixError
from condmix.data.embeddings import read_cache
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.runtime.prefetch import prefetch
from condmix.stages import embed
from demo_params import demo_params, embed_and_die


def caches(params):
    folder = params.paths.embeddings
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """Parameters on `Colours`, in this process."""
    params, data = colour_params(tmp_path), Colours()
    save_tiny_clip(params.paths.clip)
    write_all_captions(params, data)
    use_data(monkeypatch, embed, lambda: data)
    return params


def fresh(params):
    """Encode everything anew; returns the vectors."""
    for path in params.paths.embeddings.rglob("*.safetensors"):
        path.unlink()
    embed.main(params)
    folder = params.paths.embeddings
    return {str(path.relative_to(folder)): read_cache(path, None)[0].float() for path in folder.rglob("*.safetensors")}


def test_two_processes_write_the_bytes_of_one(tmp_path, one_thread, forked):
    params = demo_params(tmp_path)
    embed.main(params)
    alone = caches(params)
    for path in params.paths.embeddings.rglob("*.safetensors"):
        path.unlink()
    params.embed.processes = 2
    embed.main(params)
    assert caches(params) == alone and len(alone) == 18
    assert not list(params.paths.partial.rglob("*.safetensors"))


def test_what_was_done_before_a_kill_is_not_done_again(tmp_path, monkeypatch, one_thread, capsys, forked):
    params, untouched = demo_params(tmp_path / "killed"), demo_params(tmp_path / "untouched")
    killed = forked.start(embed_and_die, params, 16, 7)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert len(list(params.paths.partial.rglob("*.safetensors"))) == 7 and not caches(params)

    monkeypatch.setattr(embed, "SHARD", 16)
    encoded = []
    encode_shard = embed.encode_shard

    def counted(job, rows, batch_size, work, *progress):
        encoded.extend([job.what] if progress else [])
        return encode_shard(job, rows, batch_size, work, *progress)

    monkeypatch.setattr(embed, "encode_shard", counted)
    embed.main(params)
    again = len(encoded)
    done, every = map(int, re.search(r"(\d+) of (\d+) shards are done", capsys.readouterr().out).groups())
    embed.main(untouched)
    assert (done, again, len(encoded)) == (7, every - 7, again + every)
    assert caches(params) == caches(untouched)
    assert not list(params.paths.partial.rglob("*.safetensors"))


def test_where_memory_ends_batches_shrink_and_vectors_stay(colours, monkeypatch):
    expected = fresh(colours)
    sizes = []
    for kind in (ClipImage, ClipText):

        def limited(self, batch, network=kind.network):
            sizes.append(len(batch))
            if len(batch) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return network(self, batch)

        monkeypatch.setattr(kind, "network", limited)
    monkeypatch.setattr(embed, "TRIAL", 1)
    limit, colours.embed.batch_size = 5, 16
    for name, vectors in fresh(colours).items():
        torch.testing.assert_close(vectors, expected[name], atol=1e-3, rtol=0)
    assert {16, 8, 4} <= set(sizes)
    limit = 0
    monkeypatch.setattr(embed, "announce", lambda *_: None)
    with pytest.raises(CondmixError, match="train image: the memory of cpu does not suffice for one item"):
        fresh(colours)


def test_bf16_stays_near_fp32_under_a_key_of_its_own(colours):
    expected = fresh(colours)
    colours.embed.precision = "bf16"
    for name, vectors in fresh(colours).items():
        assert F.cosine_similarity(vectors, expected[name]).min() >= 0.999, name
    metadata = read_cache(colours.paths.embeddings / "test" / "caption_1.safetensors", None)[2]
    assert metadata["preprocessing"].endswith(", bf16")


def test_auto_is_the_arithmetic_of_the_hardware(colours, arithmetic):
    colours.embed.precision = arithmetic
    expected = fresh(colours)
    colours.embed.precision = "auto"
    for name, vectors in fresh(colours).items():
        assert torch.equal(vectors, expected[name]), name


def test_captions_of_like_length_together_have_the_same_vectors(colours, monkeypatch):
    captions = [["a"], ["a red dog on a log"], ["blue"], ["it is left"], ["it is left or right"]] * 12
    (colours.paths.captions / "train.json").write_text(json.dumps({"captions": captions}))
    expected = fresh(colours)
    places = []
    network = ClipText.network
    monkeypatch.setattr(ClipText, "network", lambda self, batch: places.append(list(batch)) or network(self, batch))
    colours.embed.batch_size, colours.embed.length_buckets = 2, True
    for name, vectors in fresh(colours).items():
        torch.testing.assert_close(vectors, expected[name], atol=1e-3, rtol=0)
    assert ["it is left or right", "a red dog on a log"] in places and ["a"] in places


def test_prefetch_keeps_the_order_the_bound_and_the_error():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    results = prefetch(lambda i: 100 // (15 - i), items(), threads=3, ahead=4)
    assert [next(results) for _ in range(5)] == [100 // (15 - i) for i in range(5)]
    assert len(taken) <= 5 + 4
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert np.sum(list(prefetch(int, ["1", "2"], threads=1, ahead=9))) == 3
