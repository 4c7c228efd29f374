from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.retrieval.documents import archive, docx, many_laughs, pdf

from aios.kernel.retrieval import extraction
from aios.kernel.retrieval.extraction import NotReadable, lines_of
from aios.kernel.retrieval.formats import Form


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\r\ntwo\x0cstill two\nthree", ["one", "two\x0cstill two", "three"]),
        (b"\xef\xbb\xbfmark", ["mark"]),
        ("größer".encode("utf-16"), ["größer"]),
        ("größer".encode("cp1252"), ["größer"]),
        ("cut off in é".encode()[:-1], ["cut off in "]),
        (b"", [""]),
    ],
)
def test_text_is_decoded_and_its_lines_are_those_of_an_editor(
    data: bytes, lines: list[str]
) -> None:
    assert lines_of(data, Form.TEXT) == lines


@pytest.mark.parametrize("data", [b"\x7fELF\0\0", bytes(range(128, 160)) * 20])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(NotReadable, match="no text"):
        lines_of(data, Form.CODE)


def test_a_page_gives_its_words_on_their_lines_and_no_scripts() -> None:
    page = (
        b"<h1>Rome</h1>\n<script>var secret = 1;\n</script>\n<p>by&nbsp;train <img alt='a map'></p>"
    )
    assert lines_of(page, Form.HTML) == ["Rome", "", "", "by train a map"]


def test_a_document_gives_one_line_a_paragraph() -> None:
    assert lines_of(docx("First.", "Second &amp; last."), Form.DOCX) == ["First.", "Second & last."]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK\x03\x04 broken", "broken"),
        (archive("<a>"), "broken XML"),
        (many_laughs(), "entities"),
        (archive('<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'), "entities"),
    ],
)
def test_a_hostile_document_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(NotReadable, match=why):
        lines_of(data, Form.DOCX)


def test_a_document_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "MAX_XML_BYTES", 1 << 20)
    bomb = archive(b"<x>" + b" " * (2 << 20) + b"</x>")
    assert len(bomb) < 10_000
    with pytest.raises(NotReadable, match="over 1 MiB"):
        lines_of(bomb, Form.DOCX)


def test_a_pdf_gives_its_lines() -> None:
    pytest.importorskip("pypdf")
    assert lines_of(pdf("The train leaves", "at nine."), Form.PDF) == [
        "The train leaves",
        "at nine.",
    ]


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4\ngarbage", pdf("cut")[:200]])
def test_a_broken_pdf_is_refused(data: bytes) -> None:
    pytest.importorskip("pypdf")
    with pytest.raises(NotReadable):
        lines_of(data, Form.PDF)


@given(st.binary(max_size=300), st.sampled_from(Form))
def test_any_bytes_give_lines_or_a_refusal(data: bytes, form: Form) -> None:
    with suppress(NotReadable):
        assert all("\n" not in line for line in lines_of(data, form))
