"""The line to a model: found anew when its kernel has gone."""

from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served, serving

from aios.cli.conversation import Conversation
from aios.cli.speaker import Speaker
from aios.configload import load
from aios.engine.script import Script
from aios.errors import EngineFailed, ProcessGone
from aios.sdk.requests import ChatOptions


def ask(speaker: Speaker, text: str = "Name a sea.") -> str:
    """The answer, as it came piece by piece."""
    pieces: list[str] = []
    result = speaker.ask(Conversation(ChatOptions()).ask(text), pieces.append)
    assert result.value.message.text() == "".join(pieces)
    return "".join(pieces)


def test_when_the_kernel_has_gone_the_next_question_finds_another(home: Path) -> None:
    told: list[str] = []
    with Speaker(load(), told.append, may_ask=False) as speaker:
        with serving(home, script=Script(replies=("first", "second"))):
            assert ask(speaker) == "first"
            assert ask(speaker) == "second"
        with serving(home, script=Script(replies=("third",))) as served:
            assert ask(speaker) == "third"
            assert served.kernel.table.find_named("chat") is not None
        assert ask(speaker).startswith("You said")  # on a kernel of its own
        assert (home / "run" / "kernel.sock").exists()
    assert not (home / "run" / "kernel.sock").exists()
    assert told == []


def test_a_failed_answer_is_not_asked_again(home: Path) -> None:
    with (
        serving(home, script=Script(fail_after_tokens=0)) as served,
        Speaker(load(), print, may_ask=False) as speaker,
    ):
        with pytest.raises(EngineFailed):
            ask(speaker)
        chat = served.kernel.table.find_named("chat")
        assert chat is not None
        assert chat.n_calls == 1


@pytest.mark.usefixtures("served")
def test_a_chat_that_was_killed_stays_dead(aios: Aios) -> None:
    with Speaker(load(), print, may_ask=False) as speaker:
        assert ask(speaker)
        assert aios("kill", "chat").code == 0
        with pytest.raises(ProcessGone):
            ask(speaker)


def test_a_token_that_admits_nobody_may_still_speak(
    served: Served, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = aios("guest", "bob", "--json").rows()
    monkeypatch.setenv("AIOS_URL", served.kernel.urls[0])
    monkeypatch.setenv("AIOS_TOKEN", str(row["token"]))
    with Speaker(load(), print, may_ask=False) as speaker:
        assert ask(speaker)
    bob = served.kernel.table.find_named("bob")
    assert bob is not None
    assert bob.usage.completion_tokens > 0
