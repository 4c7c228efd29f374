"""HTML as text that a model can read: headings, paragraphs, lists, links with their addresses. Pure."""

import re
from html.parser import HTMLParser

HIDDEN = frozenset({"script", "style", "noscript", "template", "svg", "head", "iframe", "object"})
BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figure", "footer", "form", "header",
        "hr", "main", "nav", "ol", "p", "pre", "section", "table", "tbody", "thead", "tr", "ul",
    }
)  # fmt: skip
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
CELLS = frozenset({"td", "th"})
_SPACE = re.compile(r"\s+")
_GAPS = re.compile(r"\n{3,}")


def text_of(html: str) -> str:
    """The text of a page: its title first, then what is shown. Never raises: a broken page is read as far as it goes."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    body = _GAPS.sub("\n\n", "\n".join(line.strip() for line in "".join(reader.pieces).split("\n")))
    title = _SPACE.sub(" ", "".join(reader.title)).strip()
    return f"# {title}\n\n{body.strip()}".strip() if title else body.strip()


class _Reader(HTMLParser):
    """Collects what is shown."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.title: list[str] = []
        self._hidden: list[str] = []
        self._is_title = False
        self._links: list[str] = []
        self._n_pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_title = tag == "title"
        if tag in HIDDEN:
            self._hidden.append(tag)
        if self._hidden:
            return
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
            self._links.append(dict(attrs).get("href") or "")
        elif tag == "img":
            self.pieces.append(dict(attrs).get("alt") or "")
        self._n_pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._is_title = False
        if tag in self._hidden:  # what is not closed ends with what holds it
            while self._hidden.pop() != tag:
                continue
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

    def handle_data(self, data: str) -> None:
        if self._is_title:
            self.title.append(data)
        elif not self._hidden:
            self.pieces.append(data if self._n_pre else _SPACE.sub(" ", data))
