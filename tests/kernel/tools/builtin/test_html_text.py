from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.tools.builtin.html_text import text_of

PAGE = """<!doctype html><html><head><title> Boats &amp; ships </title><style>p {}</style></head>
<body><script>steal()</script><h1>Boats</h1><p>A <b>red</b>
boat, <a href="/more">more</a>.<ul><li>one<li>two</ul><pre>a
  b</pre><table><tr><td>x</td><td>y</td></tr></table><img alt="a boat"><a href="javascript:x()">no</a></body>"""


def test_a_page_becomes_text() -> None:
    text = text_of(PAGE)
    assert text.startswith("# Boats & ships\n\n# Boats\n\nA red boat, more (/more).")
    for words in ("- one\n- two", "a\nb", "| x | y", "a boat"):
        assert words in text
    for words in ("steal", "p {}", "javascript"):
        assert words not in text


@given(st.text(alphabet="<>/abscripthead\"'= &;!-\n"))
def test_any_text_is_read_as_far_as_it_goes(html: str) -> None:
    assert isinstance(text_of(html), str)


def test_what_is_not_closed_hides_no_more_than_its_parent() -> None:
    assert text_of("<div><svg><path></div>after<p>end") in ("", "after\n\nend")
    assert "shown" in text_of("<svg></svg>shown")
