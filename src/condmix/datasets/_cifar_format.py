"""The CIFAR-10 python archive <-> arrays (https://www.cs.toronto.edu/~kriz/cifar.html).

cifar-10-python.tar.gz holds five training batches, a test batch and the class names as Python 2 pickles. A
pickle is a program, so it is read by an unpickler that knows nothing but numpy's way of rebuilding an array.
"""

import codecs
import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

from condmix import CondmixError
from condmix.files.atomic import replacing

from ._archives import read_tar

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
META = "batches.meta"
SIDE = 32


class CifarArchive:
    """Reads the archive in place, one split at a time (the training pixels take 154 MB)."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / ARCHIVE
        self._splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._class_names: list[str] = []

    @property
    def class_names(self) -> list[str]:
        if not self._class_names:
            self._read([META])
        return self._class_names

    def split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """images (N, 32, 32, 3) uint8 and labels (N,) int64, in the archive's order."""
        if split not in self._splits:
            pairs = self._read([META, *BATCHES[split]])
            images, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
            self._splits[split] = images, labels
        return self._splits[split]

    def _read(self, names: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The pictures and labels of the named batches, in one pass over the archive; META gives the class names."""
        contents = read_tar(self.path, {f"{FOLDER}/{name}" for name in names})
        pairs = []
        for name in names:
            content = unpickle(contents.pop(f"{FOLDER}/{name}"), f"{self.path}: {name}")
            if not isinstance(content, dict):
                raise CondmixError(f"{self.path}: {name} holds a {type(content).__name__}, not a dictionary")
            if name == META:
                self._class_names = self._names(content)
            else:
                pairs.append(self._batch(name, content))
        return pairs

    def _names(self, meta: dict) -> list[str]:
        names = meta.get(b"label_names")
        if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
            raise CondmixError(f"{self.path}: {META} holds no label_names")
        return [name.decode("ascii", "replace") for name in names]

    def _batch(self, name: str, batch: dict) -> tuple[np.ndarray, np.ndarray]:
        data, labels = batch.get(b"data"), batch.get(b"labels")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * SIDE * SIDE,):
            raise CondmixError(f"{self.path}: {name} holds no uint8 rows of {3 * SIDE * SIDE} pixels under 'data'")
        if not isinstance(labels, list) or len(labels) != len(data) or not set(map(type, labels)) <= {int}:
            raise CondmixError(f"{self.path}: {name} holds no integer label for each of its {len(data)} pictures")
        unknown = set(labels) - set(range(len(self._class_names)))
        if unknown:
            raise CondmixError(f"{self.path}: {name} has label {min(unknown)} of {len(self._class_names)} classes")
        images = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        return images, np.array(labels, np.int64)


def _latin1(text: str, encoding: str) -> bytes:
    """`_codecs.encode` as pickles by Python 3 call it to write bytes; no other codec is reachable."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return codecs.latin_1_encode(text)[0]


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's own function, wherever this numpy version keeps it
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}; only numpy arrays are allowed")
        return _ALLOWED[module, name]


def unpickle(payload: bytes, source: str) -> object:
    """Python 2 strings come back as bytes. Raises CondmixError, naming `source`, for more than plain data."""
    try:
        return _ArrayUnpickler(io.BytesIO(payload), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise CondmixError(f"{source} is not a pickle of arrays: {error or type(error).__name__}") from error


# An array as Python 2's numpy wrote it: rebuild an empty one, then set version, shape, dtype, order and bytes.
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
_UINT8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def python2_pickle(value: dict) -> bytes:
    """Protocol 2, strings as Python 2 strings: what the official batches hold. Values as in `_opcodes`."""
    return pickle.PROTO + b"\x02" + _opcodes(value) + pickle.STOP


def _opcodes(value: dict | list | bytes | int | np.ndarray) -> bytes:
    match value:
        case dict():
            pairs = b"".join(_opcodes(key) + _opcodes(item) for key, item in value.items())
            return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS
        case list():
            return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_opcodes, value)) + pickle.APPENDS
        case bytes():
            return pickle.BINSTRING + struct.pack("<i", len(value)) + value
        case int():
            return pickle.BININT + struct.pack("<i", value)
        case np.ndarray():
            shape = b"".join(map(_opcodes, value.shape)) + pickle.TUPLE2
            state = b"K\x01" + shape + _UINT8 + pickle.NEWFALSE + _opcodes(value.tobytes())
            return _ARRAY + pickle.MARK + state + pickle.TUPLE + pickle.BUILD
    raise TypeError(f"the CIFAR-10 archive has no {type(value).__name__}")


def write_cifar(
    folder: Path,
    images: dict[str, np.ndarray],
    labels: dict[str, list[int]],
    class_names: list[str],
) -> Path:
    """Writes the archive from (N, 32, 32, 3) uint8 images per split; equal input gives equal bytes."""
    path = Path(folder) / ARCHIVE
    per_batch = -(-len(images["train"]) // len(BATCHES["train"]))
    with (
        replacing(path) as part,
        open(part, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        meta = {
            b"num_cases_per_batch": per_batch,
            b"label_names": [name.encode() for name in class_names],
            b"num_vis": 3 * SIDE * SIDE,
        }
        _add(archive, META, meta)
        for split, names in BATCHES.items():
            rows = images[split].transpose(0, 3, 1, 2).reshape(len(images[split]), -1)
            step = per_batch if split == "train" else len(rows)
            for number, name in enumerate(names):
                chosen = range(len(rows))[number * step : (number + 1) * step]
                batch = {
                    b"batch_label": f"{split}ing batch {number + 1} of {len(names)}".encode(),
                    b"labels": [int(labels[split][row]) for row in chosen],
                    b"data": rows[chosen.start : chosen.stop],
                    b"filenames": [f"{class_names[labels[split][row]]}_{row:06d}.png".encode() for row in chosen],
                }
                _add(archive, name, batch)
    return path


def _add(archive: tarfile.TarFile, name: str, content: dict) -> None:
    payload = python2_pickle(content)
    member = tarfile.TarInfo(f"{FOLDER}/{name}")  # its mtime is 0
    member.size = len(payload)
    archive.addfile(member, io.BytesIO(payload))
