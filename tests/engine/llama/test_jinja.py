"""The bounded jinja2 environment: what templates need, and what they must not get."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.engine.llama import jinja
from aios.engine.llama.jinja import MAX_RANGE, MAX_SOURCE_CHARS, Program
from aios.errors import InvalidCall, TooLarge

NOW = datetime(2030, 2, 3, tzinfo=UTC)


def render(source: str, **variables: object) -> str:
    return Program(source, lambda: NOW).render(variables)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for i in range(3) %}\n{{ i }}\n{% endfor %}", "0\n1\n2\n"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in range(4) %}{% if i % 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in range(6) if i is even %}{{ loop.index }}{{ i }} {% endfor %}", "10 22 34 "),
        ("{% for i in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) ~ m('a') ~ none }}", "<1><a>None"),
        ("{{ {'b': '<é>', 'a': [1, true, none]} | tojson }}", '{"b": "<é>", "a": [1, true, null]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2030"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{{ 'a-b-c' | replace('-', '+', 1) }}{{ 'a-b'.replace('-', '') }}", "a+b-cab"),
        ("{{ [1, 2] | join(', ') }}{{ ','.join(['x', 'y']) }}", "1, 2x,y"),
        ("{{ [{'n': 'x'}, {'n': 'y'}] | join('+', attribute='n') }}", "x+y"),
        ("{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent('> ', true) }}", "a\n  b\n\n  c|> a\n> b"),
        ("{{ '%s is %d' % ('x', 7) }}{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 7 * 6 }}", "x is 7abab[1, 2]42"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ missing is defined }}{{ missing }}", "False"),
        ("{% set a, b = 1, [2] %}{% for k, v in {'x': a}.items() %}{{ k }}{{ v }}{{ b }}{% endfor %}", "x1[2]"),
        ("{% for m in [messages] + [1, none] %}{{ m if m is not none else '' }}{% endfor %}{{ (1, a)[0] }}", "11"),
        ("{{ ' x '.strip() + 'a,b'.split(',')[1] }}", "xb"),
    ],
)  # fmt: skip
def test_templates_find_what_they_know(source: str, text: str) -> None:
    assert render(source) == text


def test_blocks_leave_no_blank_lines() -> None:
    assert render("a\n  {% if true %}\n  b\n  {% endif %}\nc") == "a\n  b\nc"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ messages.append(1) }}",
        "{{ ''.format_map({}) }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{{ lipsum() }}",
        "{{ environment.step }}",
    ],
)
def test_a_template_cannot_get_out(source: str) -> None:
    messages: list[int] = []
    try:
        text = render(source, messages=messages)
    except InvalidCall:
        text = ""
    assert text == ""
    assert messages == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"{{{{ range({MAX_RANGE + 1}) }}}}", "counts to"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for i in range(9999) %}{% for j in range(9999) if false %}{% endfor %}{% endfor %}", "steps"),
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}", "steps"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 'a' * 99999999999 }}", "longer than"),
        ("{{ 99999999999 * [1] }}", "longer than"),
        ("{{ 9 ** 9 ** 9 }}", "powers"),
        ("{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}", "huge numbers"),
        ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x='a\n') %}{% for i in range(99) %}{% set ns.x = ns.x | indent(ns.x, true, true) %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x=['a']) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}", "longer than"),
        ("{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}", "longer than"),
        ("{% set s = 'x' * 1000000 %}{{ ([s] * 1000) | tojson }}", "longer than"),
        ("{% set l = range(9999) | list %}{% for i in range(9999) %}{% set x = l * 1000 %}{% endfor %}", "longer than"),
        ("{% set s = 'x' * 10000000 %}{% for i in range(9999) %}{% set t = s + 'y' %}{% endfor %}", "makes more than"),
        ("{% set l = range(9999) | list %}{% for i in range(9999) %}{% set x = l | map('string') | unique | list %}{% endfor %}", "more than 3 s"),
        ("{{ '%99999999d' % 1 }}", "pads"),
        ("{{ '%*d' % (99999999, 1) }}", "pads"),
        ("{{ 'a'.center(99999999) }}", "uses `center`"),
        ("{{ '{:99999999}'.format(1) }}", "uses `format`"),
        ("{{ [1] | tojson(indent=99999999) }}", "indents by"),
        ("{{ 'a' | center(99999999) }}", "no template"),
        ("{{ [] | batch(99999999, 1) | list }}", "no template"),
    ],
)  # fmt: skip
def test_a_template_cannot_run_for_ever_or_fill_the_memory(source: str, words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        render(source)


def test_time_that_others_use_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja, "MAX_RENDER_S", 0.05)

    def clock() -> datetime:
        Event().wait(0.2)
        return NOW

    source = "{{ strftime_now('%Y') }}{% for i in range(9) %}.{% endfor %}"
    assert Program(source, clock).render({}) == "2030........."


@pytest.mark.no_cover
def test_the_count_of_steps_begins_anew_with_each_rendering() -> None:
    program = Program("{% for i in range(4000) %}{% endfor %}ok", lambda: NOW)
    assert [program.render({}) for _ in range(30)] == ["ok"] * 30


@pytest.mark.no_cover
def test_a_rendering_does_not_wait_for_one_in_another_thread_nor_count_its_steps() -> None:
    is_begun, may_go_on = Event(), Event()

    def clock() -> datetime:
        is_begun.set()
        assert may_go_on.wait(10), "the other rendering waits for this one"
        return NOW

    loop = "{% for i in range(8000) %}{% endfor %}"
    program = Program(3 * loop + "{{ strftime_now('%Y') if is_slow }}" + 3 * loop, clock)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(program.render, {"is_slow": True})
        assert is_begun.wait(10)
        assert program.render({}) == ""
        may_go_on.set()
        assert slow.result(10) == "2030"


def test_an_output_that_is_too_long_is_cut_off_while_it_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jinja, "MAX_OUTPUT_CHARS", 1000)
    with pytest.raises(TooLarge):
        render("{% for i in range(9999) %}xxxxxxxxxx{% endfor %}")


def test_a_source_that_is_too_long_is_not_compiled() -> None:
    with pytest.raises(InvalidCall, match="characters"):
        Program("x" * (MAX_SOURCE_CHARS + 1), lambda: NOW)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ missing.field.deeper }}", "UndefinedError"),
        ("{{ [1][missing()] }}", "fails on these messages"),
        ("{% endif %}", "no template"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "no template"),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_a_template_is_the_callers_to_mend(source: str, words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        render(source)


@given(source=st.text("{}%# abforinsetd=|~*+()[]'01", max_size=60))
def test_no_source_brings_another_error(source: str) -> None:
    try:
        render(source)
    except (InvalidCall, TooLarge):
        return
