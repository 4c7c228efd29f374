"""Which kind of text a file holds, by its name. Pure."""

from enum import StrEnum


class Form(StrEnum):
    """How text is got out of a file, and the kind under which it can be asked for."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"
    CSV = "csv"
    CODE = "code"
    PDF = "pdf"
    DOCX = "docx"


_EXTENSIONS = {
    Form.MARKDOWN: "md markdown mdx rst adoc",
    Form.HTML: "html htm xhtml",
    Form.JSON: "json jsonl ndjson geojson",
    Form.CSV: "csv tsv",
    Form.PDF: "pdf",
    Form.DOCX: "docx",
    Form.CODE: (
        "py pyi js mjs ts tsx jsx c h cc cpp cxx hpp rs go java kt scala rb php pl sh bash zsh fish lua r jl swift m cs fs hs ml "
        "ex exs erl clj lisp el vim sql css scss less toml yaml yml ini cfg conf xml svg proto cmake gradle nix tf dockerfile makefile"
    ),
}
_FORM_OF = {name: form for form, names in _EXTENSIONS.items() for name in names.split()}


def extension_of(path: str) -> str:
    """What stands behind the last dot of a name, in lower case; the whole name if it has none, as in `Makefile`."""
    name = path.rpartition("/")[2].lower()
    return name.rpartition(".")[2]


def form_of(path: str) -> Form:
    """The form of a file; a name that says nothing is plain text, and its bytes will tell whether it is any."""
    return _FORM_OF.get(extension_of(path), Form.TEXT)


def is_known_type(wanted: str) -> bool:
    """Whether a type is a kind, or an extension that says something; files may have others."""
    name = wanted.lower().lstrip(".")
    return name in {"", "txt", "log", *_FORM_OF} or name in set(Form)


def is_of_type(path: str, wanted: str) -> bool:
    """Whether a file is of a type: an extension (`md`, `.py`) or a kind (`code`, `markdown`); empty is any."""
    name = wanted.lower().lstrip(".")
    return not name or extension_of(path) == name or form_of(path).value == name
