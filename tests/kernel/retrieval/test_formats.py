import pytest

from aios.kernel.retrieval.formats import Form, form_of, is_known_type, is_of_type


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/shared/a.md", Form.MARKDOWN),
        ("/shared/A.PDF", Form.PDF),
        ("/shared/x/Makefile", Form.CODE),
        ("/shared/a.tar.gz", Form.TEXT),
        ("/shared/notes", Form.TEXT),
    ],
)
def test_the_name_tells_the_form(path: str, form: Form) -> None:
    assert form_of(path) is form


def test_an_extension_that_says_nothing_is_no_known_type() -> None:
    assert all(map(is_known_type, ("", "md", ".PY", "code", "pdf", "txt", "Markdown")))
    assert not any(map(is_known_type, ("bogus", "odd", "*.md")))


def test_a_type_is_an_extension_or_a_kind() -> None:
    assert is_of_type("/shared/a.py", "code")
    assert is_of_type("/shared/a.py", ".PY")
    assert is_of_type("/shared/a.py", "")
    assert not is_of_type("/shared/a.py", "md")
