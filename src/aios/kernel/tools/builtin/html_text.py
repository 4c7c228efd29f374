"""HTML as text that a model can read: headings, paragraphs, lists, links with their addresses. Pure.

A reader of its own, for pages come from strangers: it goes forward only, whatever is broken in a page. That of the standard library takes
minutes for a megabyte of tags that are never closed. What is never closed ends with the page, as in browsers.
"""

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple

HIDDEN = frozenset({"script", "style", "noscript", "template", "svg", "head", "iframe", "object"})
RAW = frozenset({"script", "style"})
"""What is in them is no HTML."""
BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figure", "footer", "form", "header",
        "hr", "main", "nav", "ol", "p", "pre", "section", "table", "tbody", "thead", "tr", "ul",
    }
)  # fmt: skip
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
CELLS = frozenset({"td", "th"})
MAX_ATTRIBUTES_CHARS = 8_192
"""Of a tag; what comes after is not looked at."""
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_STOP = re.compile(r"[\"'>]")
_ATTRIBUTE = re.compile(r"""\b(href|alt)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_GAPS = re.compile(r"\n{3,}")


class Tag(NamedTuple):
    """The beginning or the end of an element."""

    name: str
    is_end: bool
    attributes: str


def text_of(html: str) -> str:
    """The text of a page: its title first, then what is shown. Never raises: a broken page is read as far as it goes."""
    reader = _Reader()
    for piece in _pieces(html):
        if isinstance(piece, str):
            reader.take_text(piece)
        elif piece.is_end:
            reader.take_end(piece.name)
        else:
            reader.take_begin(piece.name, piece.attributes)
    body = _GAPS.sub("\n\n", "\n".join(line.strip() for line in "".join(reader.pieces).split("\n")))
    title = _SPACE.sub(" ", "".join(reader.title)).strip()
    return f"# {title}\n\n{body.strip()}".strip() if title else body.strip()


def _pieces(html: str) -> Iterator[str | Tag]:
    """Texts and tags in order. Comments and the like are left out."""
    at = 0
    while at < len(html):
        begin = html.find("<", at)
        if begin != at:
            yield _unescaped(html[at : begin if begin >= 0 else len(html)])
        if begin < 0:
            return
        found = _TAG.match(html, begin)
        if found is not None:
            at = _end_of_tag(html, found.end())
            name, is_end = found[2].lower(), bool(found[1])
            if at < len(html) or html.endswith(">"):
                yield Tag(name, is_end, html[found.end() : at - 1][:MAX_ATTRIBUTES_CHARS])
            if name in RAW and not is_end:
                at = _end_of_raw(html, name, at)
        elif html.startswith(("<!", "<?", "</"), begin):
            end = "-->" if html.startswith("<!--", begin) else ">"
            at = _after(html, end, begin + 2)
        else:
            yield "<"
            at = begin + 1


def _end_of_tag(html: str, at: int) -> int:
    """The place after the tag in which `at` is: its end may be in quotes."""
    while (stop := _STOP.search(html, at)) is not None:
        if stop[0] == ">":
            return stop.end()
        at = _after(html, stop[0], stop.end())
    return len(html)


def _end_of_raw(html: str, name: str, at: int) -> int:
    """The place of the tag that ends an element whose content is no HTML."""
    found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(html, at)
    return len(html) if found is None else found.start()


def _after(html: str, end: str, at: int) -> int:
    found = html.find(end, at)
    return len(html) if found < 0 else found + len(end)


def _unescaped(text: str) -> str:
    try:
        return unescape(text)
    except ValueError:  # a number of a character with thousands of digits
        return text


class _Reader:
    """Collects what is shown."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.title: list[str] = []
        self._hidden: list[str] = []
        self._n_hidden: Counter[str] = Counter()
        self._is_title = False
        self._links: list[str] = []
        self._n_pre = 0

    def take_begin(self, tag: str, attributes: str) -> None:
        """An element begins."""
        self._is_title = tag == "title"
        if tag == "body":  # the end of the head may be left out
            self._hidden.clear()
            self._n_hidden.clear()
        if tag in HIDDEN and not attributes.endswith("/"):
            self._hidden.append(tag)
            self._n_hidden[tag] += 1
        if not self._hidden:
            self._show_begin(tag, attributes)

    def _show_begin(self, tag: str, attributes: str) -> None:
        if tag in BLOCKS:
            self.pieces.append("\n\n")
        elif tag in HEADINGS:
            self.pieces.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "li":
            self.pieces.append("\n- ")
        elif tag == "br":
            self.pieces.append("\n")
        elif tag in CELLS:
            self.pieces.append(" | ")
        elif tag == "a":
            self._links.append(_attribute(attributes, "href"))
        elif tag == "img":
            self.pieces.append(_attribute(attributes, "alt"))
        self._n_pre += tag == "pre"

    def take_end(self, tag: str) -> None:
        """An element ends."""
        self._is_title = False
        if self._n_hidden[tag]:  # what is not closed ends with what holds it
            ended = ""
            while ended != tag:
                ended = self._hidden.pop()
                self._n_hidden[ended] -= 1
            return
        if self._hidden:
            return
        if tag in BLOCKS or tag in HEADINGS:
            self.pieces.append("\n\n")
        elif tag == "a" and self._links:
            address = self._links.pop()
            if address.startswith(("http://", "https://", "/")):
                self.pieces.append(f" ({address})")
        self._n_pre = max(0, self._n_pre - (tag == "pre"))

    def take_text(self, text: str) -> None:
        """What stands between tags."""
        if self._is_title:
            self.title.append(text)
        elif not self._hidden:
            self.pieces.append(text if self._n_pre else _SPACE.sub(" ", text))


def _attribute(attributes: str, name: str) -> str:
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return _unescaped(found[2].strip("\"'"))
    return ""
