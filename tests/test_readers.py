"""Reading by type: what it gives, what it refuses, and that threads may do it at once."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from aios.readers import Reader, convert, from_json, from_msgpack, from_toml

CROWD = """
import sys
import threading

import msgspec

sys.setswitchinterval(1e-6)
N_THREADS = 6
for i in range(60):
    inner = f"C{i - 1} | None" if i else "int"
    fields = {"a": inner, "b": f"list[{inner}]", "c": "dict[str, int]"}
    globals()[f"C{i}"] = type(msgspec.Struct)(
        f"C{i}",
        (msgspec.Struct,),
        {"__annotations__": fields, "__module__": __name__, "a": 0, "b": msgspec.field(default_factory=list), "c": None},
    )
"""
"""Sixty classes, each with fields of the one before: looking at the last takes msgspec a while."""

READ = {
    "json": "readers.from_json(b'{}', C59)",
    "msgpack": "readers.from_msgpack(b'\\x80', C59)",
    "toml": "readers.from_toml(b'', C59)",
    "convert": "readers.convert({}, C59)",
    "reader": "readers.Reader(msgspec.msgpack.Decoder, C59).decode(b'\\x80')",
}


class Record(Struct, frozen=True):
    name: str
    folder: Path | None = None


def in_a_crowd(read: str) -> int:
    """The exit code of an interpreter in which six threads read as one class, for the first time."""
    code = f"""{CROWD}
from aios import readers

start = threading.Barrier(N_THREADS)


def go():
    start.wait(30)
    for _ in range(3):
        {read}


threads = [threading.Thread(target=go) for _ in range(N_THREADS)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""
    return subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode  # noqa: S603 - our own words


@pytest.mark.parametrize("how", READ)
def test_threads_may_read_as_a_class_that_nobody_read_before(how: str) -> None:
    """By msgspec alone nine of ten such interpreters end with a segmentation fault."""
    assert [in_a_crowd(READ[how]) for _ in range(2)] == [0, 0]


def test_every_way_reads_the_same() -> None:
    record = Record("a")
    assert from_json('{"name":"a"}', Record) == record
    assert from_msgpack(msgspec.msgpack.encode(record), Record) == record
    assert from_toml("name = 'a'", Record) == record
    assert convert({"name": "a"}, Record) == record
    assert Reader(msgspec.json.Decoder, Record).decode(b'{"name":"a"}') == record
    assert convert("7", int, strict=False) == 7


def test_a_hook_makes_what_msgspec_does_not_know() -> None:
    def hook(kind: type, value: object) -> object:
        return kind(value)

    plain = {"name": "a", "folder": "/b"}
    record = Record("a", Path("/b"))
    assert from_msgpack(msgspec.msgpack.encode(plain), Record, hook=hook) == record
    assert convert(plain, Record, hook=hook) == record
    assert Reader(msgspec.json.Decoder, Record, hook).decode(json.dumps(plain).encode()) == record


def test_what_is_not_of_the_type_is_refused() -> None:
    for read, data in (
        (partial(from_json, kind=Record), b"{}"),
        (partial(from_msgpack, kind=Record), b"\x80"),
        (partial(from_toml, kind=Record), b""),
        (Reader(msgspec.json.Decoder, Record).decode, b"{}"),
    ):
        with pytest.raises(msgspec.ValidationError, match="name"):
            read(data)
    with pytest.raises(msgspec.ValidationError, match="name"):
        convert({}, Record)
