"""Reads safetensors files that may come from anywhere, and writes them.

Such a file is the size of its header (8 bytes, little endian), the header (JSON: name, dtype, shape
and place of every tensor, and texts under `__metadata__`), and the tensors' bytes. Nothing in
it is run, or trusted. A file is read into memory and never mapped: one that is cut off meanwhile
would end the process.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

# Texts under `__metadata__` and the names of a few hundred tensors need a few hundred kilobytes.
LARGEST_HEADER_BYTES = 2**24

_DTYPES = {  # those that NumPy has, under the names of the format
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def encoded(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> bytes:
    """Returns the content of a file, the same for the same arguments.

    The library that reads such files writes the texts in a random order.

    Args:
      tensors: contiguous, of one of the dtypes above.
      texts: what is put under `__metadata__`.
    """
    names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    parts, end = [], 0
    for name, array in sorted(tensors.items()):
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": names[array.dtype],
            "shape": array.shape,
            "data_offsets": [begin, end],
        }
        parts.append(array.tobytes())
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # so that readers can map the numbers
    return b"".join([len(told).to_bytes(8, "little"), told, *parts])


def read_texts(path: Path) -> dict[str, str]:
    """Returns the texts under `__metadata__`; empty if there are none.

    Raises:
      ValueError: it is no safetensors file, or it is cut off.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header = _header(file, path.stat().st_size)
    texts = header.get("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("what its header says under __metadata__ is not a table of texts")
    return texts


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file under their names, read-only, in the dtypes they are saved in.

    Raises:
      ValueError: it is no safetensors file, or is cut off; or a tensor is of no dtype above.
      OSError: it cannot be read.
    """
    import safetensors

    with path.open("rb") as file:
        _header(file, path.stat().st_size)  # says what is wrong in plainer words
        file.seek(0)
        content = file.read()
    try:
        found = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"no safetensors file: {error}") from None
    tensors = {}
    for name, tensor in found:
        if tensor["dtype"] not in _DTYPES:
            raise ValueError(f"{name} has dtype {tensor['dtype']}, not one of {', '.join(_DTYPES)}")
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]])
        tensors[name] = array.reshape(tensor["shape"])
    return tensors


def _header(file: BinaryIO, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if size < 10:
        raise ValueError(f"no safetensors file: it has {size} bytes")
    if length > LARGEST_HEADER_BYTES:
        raise ValueError(f"no safetensors file of a model: its header would have {length:,} bytes")
    if length > size - 8:
        raise ValueError(f"it is cut off: it has {size:,} bytes, its header alone {length:,}")
    try:
        header = json.loads(file.read(length))
    except ValueError as error:
        raise ValueError(f"no safetensors file: its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise ValueError("no safetensors file: its header is no JSON object")
    needed = length + 8 + max([0, *map(_end_of, header.values())])
    if size < needed:
        raise ValueError(f"it is cut off: it has {size:,} bytes of {needed:,}")
    return header


def _end_of(tensor: Any) -> int:
    """Returns where a tensor's bytes end; 0 for what is none: safetensors itself complains."""
    match tensor:
        case {"data_offsets": [_, int(end)]}:
            return end
    return 0
