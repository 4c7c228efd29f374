"""Small GGUF files that are valid but for what a test asks to be wrong."""

import struct


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def gguf(
    *,
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    extra_keys: bytes = b"",
    n_extra: int = 0,
    tensor_kind: int = 2,
    padding: int = 0,
) -> bytes:
    """One tensor of 32 x 4 weights in Q4_0 (72 bytes), some metadata with a vocabulary; `padding` bytes more at the end."""
    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.file_type") + struct.pack("<II", 4, 15),
        text("llama.context_length") + struct.pack("<II", 4, 2048),
        text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, 3)
        + b"".join(map(text, ("a", "b", "c"))),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + struct.pack("<3f", 1, 2, 3),
    ]
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        1 if n_tensors is None else n_tensors,
        len(keys) + n_extra if n_keys is None else n_keys,
    )
    tensor = text("output.weight") + struct.pack("<IQQIQ", 2, 32, 4, tensor_kind, 0)
    head += b"".join(keys) + extra_keys + tensor
    return head + bytes(-len(head) % 32) + bytes(range(72)) + bytes(padding)
