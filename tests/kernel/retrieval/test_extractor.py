import io

import msgspec
from tests.kernel.retrieval.documents import many_laughs

from aios.kernel.retrieval.extractor import LENGTH, Extracted, Job, clean, extract, serve
from aios.kernel.retrieval.formats import Form


def test_a_file_comes_out_as_passages_with_their_lines() -> None:
    (piece,) = extract(Job(Form.TEXT, b"\n\none\ntwo\n")).pieces
    assert (piece.first, piece.last, piece.text) == (3, 4, "one\ntwo")


def test_a_hostile_file_comes_out_as_a_problem() -> None:
    assert extract(Job(Form.DOCX, many_laughs())) == Extracted(problem="it declares XML entities")


def test_it_answers_one_file_after_another_and_ends_with_the_requests() -> None:
    jobs = [Job(Form.TEXT, b"one"), Job(Form.TEXT, b"\0"), Job(Form.TEXT, b"three")]
    requests = b"".join(LENGTH.pack(len(each)) + each for each in map(msgspec.msgpack.encode, jobs))
    replies = io.BytesIO()
    serve(io.BytesIO(requests), replies)
    data, found = replies.getvalue(), []
    while data:
        (n_bytes,) = LENGTH.unpack_from(data)
        found.append(msgspec.msgpack.decode(data[4 : 4 + n_bytes], type=Extracted))
        data = data[4 + n_bytes :]
    assert [len(each.pieces) for each in found] == [1, 0, 1]


def test_what_a_database_does_not_take_is_replaced() -> None:
    assert clean("a\0b\ud800") == "a b?"
