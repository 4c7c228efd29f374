"""The head of a GGUF file: what model it is, and how long the file must be.

Only what is asked for is kept; every count in the file is checked against a limit before it is believed, so a damaged or
hostile file costs little. Source of the format: `ggml/docs/gguf.md` in the ggml project, versions 2 and 3.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

MAX_HEAD_BYTES: Final = 512 << 20
MAX_ENTRIES: Final = 1 << 16  # tensors, and metadata keys
MAX_KEPT_TEXT: Final = 1 << 16
MAX_DIMS: Final = 8

Scalar = str | int | float | bool


class MalformedGguf(ValueError):
    """The file is no GGUF, a damaged one, or of a version that is not known."""


@dataclass(frozen=True)
class GgufHead:
    """What the head of a file says.

    `size_bytes` is the least length that the file must have; `metadata` holds the plain values (no arrays, no long texts).
    """

    version: int
    metadata: Mapping[str, Scalar]
    n_tensors: int
    n_params: int
    size_bytes: int
    main_type: str
    """The format in which most of the weights are."""

    @property
    def architecture(self) -> str:
        """Such as `llama`, or empty."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        """What its makers call it, or empty."""
        return str(self.metadata.get("general.name", ""))

    @property
    def context_tokens(self) -> int:
        """The window it was trained for; 0 if it does not say."""
        value = self.metadata.get(f"{self.architecture}.context_length", 0)
        return value if isinstance(value, int) else 0

    @property
    def quantisation(self) -> str:
        """Such as `Q4_K_M`."""
        kind = self.metadata.get("general.file_type")
        return (_FILE_TYPES.get(kind) if isinstance(kind, int) else None) or self.main_type


def read_head(path: Path) -> GgufHead:
    """Read the head of a file.

    Raises:
        MalformedGguf: It is no GGUF, or its head is damaged or cut off.
        OSError: It cannot be read.
    Cost: 25 ms for a vocabulary of 49,152 tokens.
    """
    with path.open("rb") as file:
        return _HeadReader(file).read()


class _Cursor:
    """Little-endian values, one after the other, from a bounded beginning of a file."""

    CHUNK_BYTES: Final = 1 << 18

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0
        self.n_read = 0

    def take(self, n_bytes: int) -> bytes:
        if self._at + n_bytes > len(self._buffer):
            self._refill(n_bytes)
        start = self._at
        self._at += n_bytes
        self.n_read += n_bytes
        return self._buffer[start : self._at]

    def skip(self, n_bytes: int) -> None:
        n_buffered = len(self._buffer) - self._at
        if n_bytes <= n_buffered:
            self._at += n_bytes
        else:
            self._check(n_bytes)
            self._file.seek(n_bytes - n_buffered, 1)
            self._buffer, self._at = b"", 0
        self.n_read += n_bytes

    def number(self, form: Struct) -> int:
        value: int = form.unpack(self.take(form.size))[0]
        return value

    def text(self) -> bytes:
        n_bytes = self.number(_U64)
        if n_bytes > MAX_KEPT_TEXT:
            self.skip(n_bytes)
            return b""
        return self.take(n_bytes)

    def skip_texts(self, count: int) -> None:
        for _ in range(count):
            self.skip(self.number(_U64))

    def _refill(self, n_bytes: int) -> None:
        self._check(n_bytes)
        rest = self._buffer[self._at :]
        self._buffer = rest + self._file.read(max(self.CHUNK_BYTES, n_bytes))
        self._at = 0
        if len(self._buffer) < n_bytes:
            raise MalformedGguf("the file ends within its head")

    def _check(self, n_bytes: int) -> None:
        if self.n_read + n_bytes > MAX_HEAD_BYTES:
            raise MalformedGguf(f"its head is longer than {MAX_HEAD_BYTES >> 20} MiB, or damaged")


class _HeadReader:
    def __init__(self, file: BinaryIO) -> None:
        self._cursor = _Cursor(file)

    def read(self) -> GgufHead:
        cursor = self._cursor
        if cursor.take(4) != b"GGUF":
            raise MalformedGguf("it does not begin with the letters GGUF")
        version = cursor.number(_U32)
        if version not in (2, 3):
            raise MalformedGguf(f"it is of GGUF version {version}; 2 and 3 are known")
        n_tensors, n_keys = self._count("tensors"), self._count("metadata keys")
        metadata: dict[str, Scalar] = {}
        for _ in range(n_keys):
            key = cursor.text().decode("utf-8", "replace")
            value = self._value(cursor.number(_U32))
            if value is not None:
                metadata[key] = value
        tensors = [self._tensor() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise MalformedGguf(f"its alignment is {alignment}")
        start = -(-cursor.n_read // alignment) * alignment
        types: Counter[str] = Counter()
        for tensor in tensors:
            types[tensor.type_name] += tensor.n_params
        return GgufHead(
            version=version,
            metadata=metadata,
            n_tensors=n_tensors,
            n_params=sum(tensor.n_params for tensor in tensors),
            size_bytes=start + max((tensor.end for tensor in tensors), default=0),
            main_type=types.most_common(1)[0][0] if types else "",
        )

    def _count(self, what: str) -> int:
        count = self._cursor.number(_U64)
        if count > MAX_ENTRIES:
            raise MalformedGguf(f"it claims to have {count} {what}")
        return count

    def _value(self, kind: int) -> Scalar | None:
        """A metadata value; None for one that is not kept."""
        cursor = self._cursor
        if kind == _TEXT:
            return cursor.text().decode("utf-8", "replace")
        if kind == _ARRAY:
            self._skip_array()
            return None
        form = _NUMBERS.get(kind)
        if form is None:
            raise MalformedGguf(f"it has metadata of the unknown kind {kind}")
        value: Scalar = form.unpack(cursor.take(form.size))[0]
        return value

    def _skip_array(self) -> None:
        cursor = self._cursor
        kind, count = cursor.number(_U32), cursor.number(_U64)
        if count * (8 if kind == _TEXT else 1) > MAX_HEAD_BYTES:
            raise MalformedGguf(f"it has an array of {count} values in its head")
        if kind == _TEXT:
            cursor.skip_texts(count)
        elif kind in _NUMBERS:
            cursor.skip(count * _NUMBERS[kind].size)
        else:
            raise MalformedGguf(f"it has an array of the unknown kind {kind}")

    def _tensor(self) -> "_Tensor":
        cursor = self._cursor
        cursor.text()
        n_dims = cursor.number(_U32)
        if n_dims > MAX_DIMS:
            raise MalformedGguf(f"it has a tensor of {n_dims} dimensions")
        n_params = prod(cursor.number(_U64) for _ in range(n_dims))
        return _Tensor(n_params, kind=cursor.number(_U32), offset=cursor.number(_U64))


@dataclass(frozen=True)
class _Tensor:
    n_params: int
    kind: int
    offset: int

    @property
    def type_name(self) -> str:
        return _TENSOR_TYPES[self.kind][0] if self.kind in _TENSOR_TYPES else f"type {self.kind}"

    @property
    def end(self) -> int:
        """Where its data ends, from the start of all data; a type that is not known counts as nothing."""
        _, block, block_bytes = _TENSOR_TYPES.get(self.kind, ("", 1, 0))
        return self.offset + -(-self.n_params // block) * block_bytes


_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_TEXT: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {
    kind: Struct(f"<{form}")
    for kind, form in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}

# Name, weights in a block, bytes of a block.
_TENSOR_TYPES: Final = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}

# `general.file_type`: the names by which people know the mixtures.
_FILE_TYPES: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}
