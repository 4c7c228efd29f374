"""Text out of the bytes of a file, line by line.

Runs in a process of its own with bounds (`extractor.py`), for a file may be made to harm who reads it: a small archive that
unpacks to gigabytes, XML whose entities multiply, a PDF that never ends. The bounds here say what is refused; those of the process hold
whatever was overlooked.
"""

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from types import MappingProxyType
from xml.parsers import expat

from aios.kernel.retrieval.formats import Form

MAX_TEXT_CHARS = 16 << 20
"""Of one file; what is behind it is not found."""
MAX_XML_BYTES = 64 << 20
MAX_PDF_PAGES = 5_000
SNIFFED_BYTES = 8 << 10
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

Lines = list[str]


class NotReadable(Exception):
    """No text can be got out; the message says why, in a few words."""


def lines_of(data: bytes, form: Form) -> Lines:
    """The lines of a file's text. They are those of the file itself for text, JSON, CSV, code and HTML; of the text in it otherwise.

    Raises:
        NotReadable: It is no text, broken, or larger inside than allowed.
    """
    return _READERS.get(form, _plain)(data)


def is_binary(head: bytes) -> bool:
    """Whether the first bytes of a file show that it is no text."""
    return b"\0" in head and not head.startswith(UTF_16_MARKS)


def _plain(data: bytes) -> Lines:
    # Not `splitlines`: editors count lines by line feeds, and the line of a hit must be theirs.
    return _decoded(data).replace("\r\n", "\n").split("\n")


def _decoded(data: bytes) -> str:
    """Text in UTF-8 or UTF-16, else in the Windows alphabet that most other texts are in."""
    if data.startswith(UTF_16_MARKS):
        return data.decode("utf-16", "replace")[:MAX_TEXT_CHARS]
    if is_binary(data[:SNIFFED_BYTES]):
        raise NotReadable("no text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":  # only a part of the file was given
            text = data[: error.start].decode("utf-8-sig")
        else:
            text = _western(data)
    return text[:MAX_TEXT_CHARS]


def _western(data: bytes) -> str:
    text = data.decode("cp1252", "replace")
    sample = text[:SNIFFED_BYTES]
    n_odd = sum(not (char.isprintable() or char.isspace()) for char in sample)
    if n_odd * 10 > len(sample) or sample.count("\ufffd") * 10 > len(sample):
        raise NotReadable("no text")
    return text


class _Words(HTMLParser):
    """The text of a page, each word on the line of the file that it stands in."""

    HIDDEN = frozenset({"script", "style", "template", "noscript"})

    def __init__(self, n_lines: int) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[list[str]] = [[] for _ in range(n_lines)]
        self._n_hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.HIDDEN:
            self._n_hidden += 1
        for name, value in attrs:
            if name in ("alt", "title") and value:
                self._put(value)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.HIDDEN and self._n_hidden:
            self._n_hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._n_hidden:
            self._put(data)

    def _put(self, text: str) -> None:
        first = self.getpos()[0] - 1
        for number, line in enumerate(text.split("\n"), first):
            if words := line.split():
                self.lines[min(number, len(self.lines) - 1)].append(" ".join(words))


def _html(data: bytes) -> Lines:
    text = _decoded(data)
    page = _Words(text.count("\n") + 1)
    page.feed(text)
    page.close()
    return [" ".join(each) for each in page.lines]


_PARAGRAPH = "http://schemas.openxmlformats.org/wordprocessingml/2006/main p"
_TEXT, _TAB, _BREAK = (_PARAGRAPH[:-1] + each for each in ("t", "tab", "br"))


def _docx(data: bytes) -> Lines:
    """One line a paragraph. The document is one XML file in an archive; nothing else of the archive is unpacked."""
    try:
        with (
            zipfile.ZipFile(io.BytesIO(data)) as archive,
            archive.open("word/document.xml") as file,
        ):
            xml = file.read(MAX_XML_BYTES + 1)
    except (
        zipfile.BadZipFile,
        KeyError,
        OSError,
        RuntimeError,
        NotImplementedError,
        EOFError,
    ) as error:
        raise NotReadable(f"broken document: {error}") from error
    if len(xml) > MAX_XML_BYTES:
        raise NotReadable(f"over {MAX_XML_BYTES >> 20} MiB when unpacked")
    return _paragraphs(xml)


def _paragraphs(xml: bytes) -> Lines:
    lines: Lines = []
    words: list[str] = []
    is_text = False
    parser = expat.ParserCreate(namespace_separator=" ")

    def begin(tag: str, _: dict[str, str]) -> None:
        nonlocal is_text
        is_text = tag == _TEXT
        if tag in (_TAB, _BREAK):
            words.append(" ")

    def end(tag: str) -> None:
        nonlocal is_text
        is_text = False
        if tag == _PARAGRAPH:
            lines.extend("".join(words).splitlines() or [""])
            words.clear()

    def put(text: str) -> None:
        if is_text:
            words.append(text)

    def refuse(*_: object) -> int:
        # No word processor writes entities; whoever does wants them to multiply or to reach other files.
        raise NotReadable("it declares XML entities")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = put
    parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise NotReadable(f"broken XML: {error}") from error
    return lines


def _pdf(data: bytes) -> Lines:
    """The lines of all pages, one after another."""
    try:
        import pypdf  # noqa: PLC0415 - an optional extra
        from pypdf.errors import PyPdfError  # noqa: PLC0415 - the same
    except ImportError as error:
        raise NotReadable("PDF needs `pip install 'aios-kernel[documents]'`") from error
    lines: Lines = []
    n_chars = 0
    try:
        pages = pypdf.PdfReader(io.BytesIO(data)).pages
        for _, page in zip(range(MAX_PDF_PAGES), pages, strict=False):
            text = page.extract_text()
            lines += text.splitlines()
            n_chars += len(text)
            if n_chars > MAX_TEXT_CHARS:
                break
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
        RecursionError,
    ) as error:
        # A broken file makes the library fail in many ways; what was read before is as good as it gets.
        if not lines:
            raise NotReadable(f"broken PDF: {type(error).__name__}") from error
    return [re.sub(r"[\x00-\x08\x0e-\x1f]", " ", line) for line in lines]


_READERS: Mapping[Form, Callable[[bytes], Lines]] = MappingProxyType(
    {Form.HTML: _html, Form.DOCX: _docx, Form.PDF: _pdf}
)
