"""Reading the project's own files: JSON, arrays and tensors, checked against what they must hold and a checksum.

Every reader takes a `remedy`, the command that makes the file again, and ends in a CondmixError of one sentence where
the file is missing, can't be read (no permission, a folder in its place), or is damaged. A schema is a type that
pydantic understands, mostly a TypedDict; keys that it does not name are allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import reprlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open

from condmix import CondmixError
from condmix.files.atomic import replacing, write_json
from condmix.runtime.oserrors import one_line, sentence

if TYPE_CHECKING:  # torch takes seconds to import, and the readers of JSON and of arrays do without it
    from torch import Tensor, nn

Network = TypeVar("Network", bound="nn.Module")
SHA256 = "sha256"  # where a safetensors file holds the checksum of its own content
CONTENT_SHA256 = "content_sha256"  # where a JSON file does; the sha256 in a model's card is that of the weights


def damaged(path: Path | str, reason: str, remedy: str) -> CondmixError:
    """The error for a file whose content is not what it must be."""
    return CondmixError(f"{path} is damaged ({reason}): delete it and run {remedy}")


# ---- JSON and text ----


def read_text(path: Path, remedy: str) -> str:
    """A text file's content (UTF-8)."""
    with _opened(path, remedy) as file:
        content: bytes = file.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise damaged(path, "it is not text in UTF-8", remedy) from None


def read_json(path: Path, schema: Any, remedy: str) -> Any:
    """A JSON file's content, as it stands there, if it fits the schema."""
    return parse_json(read_text(path, remedy), schema, path, remedy)


def parse_json(text: str, schema: Any, path: Path | str, remedy: str) -> Any:
    """The content of JSON that was read from `path`, if it fits the schema; NaN and infinity never do."""
    try:
        content = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise damaged(path, "it is nested too deeply", remedy) from None
    except ValueError as error:
        raise damaged(path, f"it is not JSON: {one_line(error)}", remedy) from None
    return _fitting(content, schema, path, remedy)


def write_checked_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file that holds, as `content_sha256`, the checksum of its other keys."""
    content = {key: value for key, value in content.items() if key != CONTENT_SHA256}
    as_read = json.loads(json.dumps(content))  # tuples are lists there
    write_json(path, {**content, CONTENT_SHA256: _json_digest(as_read)})


def read_checked_json(path: Path, schema: Any, remedy: str) -> Any:
    """What `write_checked_json` wrote, if its checksum and the schema agree; without the checksum."""
    content = read_json(path, schema, remedy)
    checksum = content.pop(CONTENT_SHA256, None)
    if checksum is None:
        raise damaged(path, f"it lacks {CONTENT_SHA256}, or an earlier version of condmix wrote it", remedy)
    if checksum != _json_digest(content):
        raise damaged(path, "its content does not match its checksum", remedy)
    return content


def _fitting(content: Any, schema: Any, path: Path | str, remedy: str) -> Any:
    try:
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as error:
        raise damaged(path, _complaint(error), remedy) from None
    return content


# ---- arrays ----


def read_array(
    path: Path, dtype: Any, shape: Sequence[int | None], remedy: str, sha256: str | None = None
) -> np.ndarray:
    """An array of this type and shape (None: any length from 1) from an .npy file, mapped and read-only.

    `sha256` is that of its data, without the header.
    """
    dtype = np.dtype(dtype)
    with _opened(path, remedy) as file:
        with _parsing(path, remedy):
            version = np.lib.format.read_magic(file)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            found_shape, fortran, found_dtype = header[version](file)
        offset, size = file.tell(), path.stat().st_size
    fits = len(found_shape) == len(shape) and all(
        length == wanted or wanted is None and length > 0 for length, wanted in zip(found_shape, shape, strict=True)
    )
    if not fits or found_dtype != dtype or fortran:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        held = f"{found_dtype} of shape {found_shape}{', column by column' if fortran else ''}"
        raise damaged(path, f"it holds {held}, not {dtype} of shape ({wanted})", remedy)
    expected = offset + math.prod(found_shape) * dtype.itemsize
    if size != expected:
        raise damaged(path, f"it has {size:,} bytes, not {expected:,}", remedy)
    if sha256 is not None and digest_of_file(path, offset) != sha256:
        raise damaged(path, "its content does not match its checksum", remedy)
    if not math.prod(found_shape):
        return np.empty(found_shape, dtype)
    return np.memmap(path, dtype, "r", offset, found_shape)


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file."""
    with _opened(path, remedy) as file, _parsing(path, remedy), np.load(file, allow_pickle=False) as entries:
        arrays = dict(entries)
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy hands out the bytes of what does not begin like an array
            raise damaged(path, f'its entry "{name}" is not an array', remedy)
    return arrays


# ---- tensors ----


def read_tensors(path: Path, remedy: str, sha256: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its metadata; `sha256` is that of the file."""
    with _opened(path, remedy):
        pass  # safetensors' own errors do not tell a folder or a lack of permission from damage
    if sha256 is not None and digest_of_file(path) != sha256:
        raise damaged(path, "its content does not match its checksum", remedy)
    with _parsing(path, remedy), safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_tensors_metadata(path: Path, remedy: str) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors."""
    with _opened(path, remedy):
        pass
    with _parsing(path, remedy), safe_open(path, "pt") as file:
        return file.metadata() or {}


def write_checked_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replace a safetensors file whose metadata hold the checksum of the tensors and of the other metadata."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as part:
        save_file(tensors, part, {**metadata, SHA256: _tensors_digest(tensors, metadata)})


def read_checked_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_checked_tensors` wrote, if its checksum is right."""
    tensors, metadata = read_tensors(path, remedy)
    if metadata.pop(SHA256, None) != _tensors_digest(tensors, metadata):
        raise damaged(path, "its content does not match its checksum", remedy)
    return tensors, metadata


def require(
    tensors: Mapping[str, Any], name: str, dtype: Any, shape: Sequence[int | None], path: Path, remedy: str
) -> Any:
    """The tensor or array of this name; a CondmixError unless it has this type and shape (None: any length)."""
    if name not in tensors:
        raise damaged(path, f'it lacks "{name}"', remedy)
    tensor = tensors[name]
    fits = len(tensor.shape) == len(shape) and all(
        wanted in (None, length) for length, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits or tensor.dtype != dtype:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise damaged(
            path, f'"{name}" is {tensor.dtype} of shape {tuple(tensor.shape)}, not {dtype} of shape ({wanted})', remedy
        )
    return tensor


def rebuilt(
    make: Callable[[], Network], tensors: Mapping[str, Tensor], weights: Path, card: Path, remedy: str
) -> Network:
    """The network that `make` builds of the sizes in `card`, with the tensors that were read from `weights`."""
    import torch

    try:
        with torch.device("meta"):  # without memory or time, so that sizes which do not fit the weights cost nothing
            outline = make()
    except CondmixError as error:
        raise damaged(card, one_line(error), remedy) from error
    except Exception as error:  # whatever torch makes of sizes that do not fit together
        raise damaged(card, f"no network has its sizes: {one_line(error)}", remedy) from error
    check_weights(outline, tensors, weights, remedy)
    network = make()
    network.load_state_dict(dict(tensors))
    return network


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, remedy: str) -> None:
    """CondmixError unless these are the module's weights: all of them, of its shapes and types, and finite.

    Half precision passes too, as small exports have it: loading it into the module widens it.
    """
    import torch

    own = module.state_dict()
    for name, tensor in own.items():
        half = name in tensors and tensors[name].dtype == torch.float16
        stored = require(tensors, name, torch.float16 if half else tensor.dtype, tensor.shape, path, remedy)
        if stored.is_floating_point() and not stored.isfinite().all():
            raise damaged(path, f'"{name}" holds NaN or infinity', remedy)
    for name in tensors:
        if name not in own:
            raise damaged(path, f'it holds "{name}", which the network does not have', remedy)


# ---- checksums ----


def digest_of_file(path: Path, offset: int = 0) -> str:
    """The sha256 of a file from byte `offset` on; computed once for as long as the file is not changed."""
    facts = path.stat()
    return _digest_of_file(path, offset, (facts.st_ino, facts.st_size, facts.st_mtime_ns))


@functools.lru_cache(maxsize=64)
def _digest_of_file(path: Path, offset: int, _unchanged: tuple[int, ...]) -> str:
    with open(path, "rb") as file:
        file.seek(offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tensors_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- errors ----


@contextmanager
def _opened(path: Path, remedy: str) -> Iterator[Any]:
    """The file, open for reading bytes; a CondmixError where that is not possible, which is no damage."""
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise CondmixError(f"{path} is not a regular file: move it away and run {remedy}")
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise CondmixError(f"{path} is missing: run {remedy}") from None
    except OSError as error:
        raise CondmixError(f"{sentence(error)} ({remedy})") from error
    with file:
        yield file


@contextmanager
def _parsing(path: Path, remedy: str) -> Iterator[None]:
    """Around a library that parses a file: what it raises over damage is of too many kinds to name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # the disk, not the content
            raise CondmixError(f"{sentence(error)} ({remedy})") from error
        raise damaged(path, one_line(error), remedy) from error
    except Exception as error:
        raise damaged(path, one_line(error) or type(error).__name__, remedy) from error


@functools.lru_cache
def _adapter(schema: Any) -> TypeAdapter:
    return TypeAdapter(schema)


def _complaint(error: ValidationError) -> str:
    """pydantic's first complaint, in words."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "missing":
        return f"it lacks {key}"
    if first["type"] == "extra_forbidden":
        return f"it holds {key}, which this version of condmix does not know"
    if first["type"] == "value_error":  # a check of our own, whose words name the value
        return f"{key}: {first['ctx']['error']}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{f'{key}: ' if key else ''}{message}, not {reprlib.repr(first['input'])}"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")
