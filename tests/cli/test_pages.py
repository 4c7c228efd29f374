"""`pages` against a kernel whose store was filled by hand: no model is needed."""

import numpy as np
from tests.cli.conftest import Aios, Served

from aios.abi.types import EngineState


def fill(served: Served) -> None:
    store = served.kernel.contexts.open_pages(fingerprint="small/q4", page_tokens=4, page_bytes=64)
    parent = None
    for key in store.keys(np.arange(12, dtype=np.int32)):
        assert store.add(key, parent, lambda page: page.fill(1))
        parent = key


def test_a_kernel_that_pages_nothing_says_so(served: Served, aios: Aios) -> None:
    assert served.kernel.contexts.statistics() == {}
    ran = aios("pages")
    assert ran.code == 0
    assert ran.out == ""
    assert "no engine has a page store" in ran.err
    assert aios("pages", "--json").rows() == []


def test_while_an_engine_loads_its_page_store_is_said_to_follow(served: Served, aios: Aios) -> None:
    served.kernel.cores.get("local").state = EngineState.LOADING
    ran = aios("pages")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "engine local is loading; it opens its page store when it is ready\n"
    assert aios("pages", "--json").rows() == []
    fill(served)
    assert "small/q4" in aios("pages").out


def test_pages_tells_what_the_stores_hold(served: Served, aios: Aios) -> None:
    fill(served)
    rows = dict(line.split(maxsplit=1) for line in aios("pages").out.splitlines())
    assert rows["model"] == "small/q4"
    assert rows["page"] == "4 tokens, 64 B"
    assert rows["memory"].startswith("3 pages, 192 B of ")
    (told,) = aios("pages", "--json").rows()
    assert (told["n_resident"], told["n_added"], told["page_tokens"]) == (3, 3, 4)
    assert told["n_damaged"] == 0
