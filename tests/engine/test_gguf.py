"""The reader of GGUF heads, on good files and on every kind of bad one."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.gguf_files import gguf, text

from aios.engine.gguf import MAX_ENTRIES, MalformedGguf, read_head


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.gguf"
    path.write_bytes(data)
    return path


def test_the_head_tells_what_model_it_is_and_how_long_the_file_must_be(tmp_path: Path) -> None:
    data = gguf()
    head = read_head(write(tmp_path, data))
    assert (head.architecture, head.context_tokens, head.quantisation) == ("llama", 2048, "Q4_K_M")
    assert (head.n_tensors, head.n_params, head.main_type) == (1, 128, "Q4_0")
    assert head.size_bytes == len(data)


def test_a_file_type_that_has_no_name_yields_to_the_type_of_the_weights(tmp_path: Path) -> None:
    data = gguf().replace(
        text("general.file_type") + struct.pack("<II", 4, 15),
        text("general.file_type") + struct.pack("<II", 4, 999),
    )
    assert read_head(write(tmp_path, data)).quantisation == "Q4_0"


def test_a_weight_format_that_is_not_known_still_leaves_a_lower_bound(tmp_path: Path) -> None:
    data = gguf(tensor_kind=77)
    head = read_head(write(tmp_path, data))
    assert head.main_type == "type 77"
    assert head.size_bytes == len(data) - 72


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends within its head"),
        (b"PK\x03\x04" + bytes(100), "letters GGUF"),
        (gguf(version=1), "version 1"),
        (gguf(version=0x3000000), "version 50331648"),
        (gguf(n_tensors=MAX_ENTRIES + 1), "65537 tensors"),
        (gguf(n_keys=2**63), "9223372036854775808 metadata keys"),
        (gguf(n_keys=6), "longer than 512 MiB"),
        (gguf(extra_keys=text("k") + struct.pack("<I", 99), n_extra=1), "unknown kind 99"),
        (
            gguf(extra_keys=text("k") + struct.pack("<IIQ", 9, 9, 1), n_extra=1),
            "array of the unknown",
        ),
        (
            gguf(extra_keys=text("k") + struct.pack("<IIQ", 9, 8, 2**40), n_extra=1),
            "array of 1099511627776",
        ),
        (gguf(extra_keys=text("k") + struct.pack("<IQ", 8, 2**62), n_extra=1), "longer than"),
        (
            gguf(extra_keys=text("general.alignment") + struct.pack("<II", 4, 0), n_extra=1),
            "alignment",
        ),
    ],
)
def test_a_file_that_is_no_gguf_is_refused_with_the_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    with pytest.raises(MalformedGguf, match=reason):
        read_head(write(tmp_path, data))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(gguf()) - 1), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_any_damage_is_refused_or_read_but_never_another_error(
    tmp_path: Path, at: int, byte: int, cut: int
) -> None:
    data = bytearray(gguf())
    data[at] = byte
    path = write(tmp_path, bytes(data[: max(len(data) - cut, 0)]))
    try:
        head = read_head(path)
    except MalformedGguf:
        return
    assert head.version in (2, 3)
    assert head.size_bytes >= 0


def test_texts_of_any_length_are_skipped_without_being_read_in(tmp_path: Path) -> None:
    long = struct.pack("<Q", 3 << 20) + b"x" * (3 << 20)
    key = text("tokenizer.chat_template") + struct.pack("<I", 8) + long
    data = gguf(extra_keys=key, n_extra=1)
    head = read_head(write(tmp_path, data))
    assert head.metadata["tokenizer.chat_template"] == ""
    assert head.size_bytes == len(data)
