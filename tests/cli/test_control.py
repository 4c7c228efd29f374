"""info, guest and shutdown."""

import os
from pathlib import Path

import httpx
import pytest
from tests.cli.conftest import Aios, Served, serving


def test_info_tells_what_runs(served: Served, aios: Aios, home: Path) -> None:
    served.admit("bob")
    rows = dict(line.split(maxsplit=1) for line in aios("info").out.splitlines())
    assert rows["home"] == str(home)
    assert rows["pid"] == str(os.getpid())
    assert rows["address"] == f"unix://{home}/run/kernel.sock"
    assert rows["processes"] == "2"
    assert rows["engine"].startswith("local (ScriptedEngine); scripted; 8192 tokens window;")
    (about,) = aios("info", "--json").rows()
    assert about["n_processes"] == 2


def test_a_guest_gets_a_token_that_works_with_openai_clients(home: Path, aios: Aios) -> None:
    with serving(home, http=True):
        (made,) = aios("guest", "bob", "--json").rows()
        answer = httpx.get(
            f"{made['openai_base_url']}/models",
            headers={"Authorization": f"Bearer {made['token']}"},
        )
        assert answer.status_code == 200
        text = aios("guest", "eve").out
        assert "export OPENAI_API_KEY=aios_" in text
        assert f"export OPENAI_BASE_URL={made['openai_base_url']}" in text
        assert [row["name"] for row in aios("ps", "--json").rows()] == ["bob", "eve"]


@pytest.mark.usefixtures("served")
def test_a_guest_of_a_kernel_without_http_is_told_what_has_it(aios: Aios) -> None:
    assert "`aios serve` has" in aios("guest", "bob").out
    assert aios("guest", "eve", "--json").rows()[0]["openai_base_url"] is None


@pytest.mark.usefixtures("served")
def test_a_malformed_name_is_refused(aios: Aios) -> None:
    assert aios("guest", "no such name").code == 2


def test_a_guests_token_may_not_do_what_the_owner_may(
    served: Served, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = aios("guest", "bob", "--json").rows()
    monkeypatch.setenv("AIOS_TOKEN", str(made["token"]))
    assert aios("shutdown").code == 5
    monkeypatch.setenv("AIOS_TOKEN", "aios_wrong")
    ran = aios("ps")
    assert ran.code == 5
    assert "aios_wrong" not in ran.err
    assert not served.kernel.stopping.is_set()


def test_shutdown_asks_the_kernel_to_end(
    served: Served, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its address, so that the command does not wait for what this process does with it.
    monkeypatch.setenv("AIOS_URL", served.kernel.urls[0])
    assert aios("shutdown").out == "the kernel is ending\n"
    assert served.kernel.stopping.is_set()


@pytest.mark.usefixtures("home")
def test_without_a_kernel_there_is_nothing_to_shut_down(aios: Aios) -> None:
    for verb in (["shutdown"], ["info"], ["guest", "bob"], ["top", "--once"]):
        assert aios(*verb).code == 3
