from time import process_time

import pytest
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


N = 100_000


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "html",
    [
        "<!--" * N, "<![CDATA[" * N, "<?" * N, "</" * N, "<a " * N, "<a '" * N + ">", "<" * N, "<a" * N + "\">",
        "<svg>" * N + "</p>" * N, "<svg>" * (N // 4) + "</script>" * (N // 4) + "</style>" * (N // 4),
        "<a href='" + "href=\"" * N + "'>", "<script>" * N, "&#" + "9" * N + ";", "&" * N, "<![" + "x" * N,
        "<title>" * N, "<pre>" * N, "<a href=" * N + ">",
    ],
    ids=range(18),
)  # fmt: skip
def test_no_page_takes_long(html: str) -> None:
    begun_s = process_time()
    assert isinstance(text_of(html), str)
    assert process_time() - begun_s < 10.0, (
        "with coverage on a slow machine 3 s; in quadratic time minutes"
    )


def test_a_page_is_read_as_browsers_do() -> None:
    assert (
        text_of("<head><title>T</title><p class='[&>svg]:x'>in the head<body>shown")
        == "# T\n\nshown"
    )
    assert text_of('<p data-x="a > b">one</p>') == "one"
    assert text_of("a < b <3 c") == "a < b <3 c"
    assert text_of("<script>if (a </b) '</p>'</script >after") == "after"
    assert text_of("<p>one<!-- <p>two --><![x]>three<?php echo '>' ?>") == "onethree' ?>"
    assert text_of('<a href = "/x?a=1&amp;b=2" class=y>link</a>') == "link (/x?a=1&b=2)"
    assert text_of("seen<a never closed") == "seen"
    assert text_of("&#" + "9" * 5000 + ";") == "&#" + "9" * 5000 + ";"
