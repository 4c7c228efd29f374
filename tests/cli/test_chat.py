"""`aios chat`: one answer, and conversations on a terminal."""

import signal
from pathlib import Path

import pytest
from tests.cli.conftest import Aios, Served, Start, Terminals, serving

from aios.engine.script import Script

SLOW = Script(answer_tokens=5000, token_delay_s=0.005)


def test_one_message_gets_one_answer(served: Served, aios: Aios) -> None:
    ran = aios("chat", "Name a sea.")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("You said: Name a sea.")
    assert served.kernel.info().engines[0].usage.completion_tokens > 0


@pytest.mark.usefixtures("served")
def test_json_has_the_answer_and_what_it_cost(aios: Aios) -> None:
    (row,) = aios("chat", "Name a sea.", "--json", "--max-tokens", "5").rows()
    assert (row["finish"], row["model"]) == ("length", "scripted")
    assert row["usage"] == {"prompt_tokens": 12, "cached_tokens": 0, "completion_tokens": 5}
    assert {"text", "waited_s", "ran_s"} <= set(row)


@pytest.mark.usefixtures("served")
def test_an_answer_that_was_cut_says_so(aios: Aios) -> None:
    assert "[cut at 5 tokens" in aios("chat", "Name a sea.", "--max-tokens", "5").err


@pytest.mark.usefixtures("served")
def test_a_schema_shapes_the_answer(aios: Aios, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"enum": ["warm", "cold"]}')
    assert aios("chat", "How is it?", "--schema", file).out in {'"warm"\n', '"cold"\n'}
    file.write_text("[]")
    assert aios("chat", "How is it?", "--schema", file).code == 2
    assert aios("chat", "How is it?", "--schema", tmp_path / "nowhere").code == 2


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("words", "code"),
    [(["--temperature", "-1"], 2), (["--model", "nobody"], 4), (["--max-tokens", "0"], 2)],
)
def test_what_cannot_be_asked_is_refused(aios: Aios, words: list[str], code: int) -> None:
    ran = aios("chat", "hi", *words)
    assert ran.code == code
    assert ran.err.startswith("error: ")


@pytest.mark.usefixtures("home")
def test_nothing_to_say_is_refused(start: Start) -> None:
    ran = start("chat").end()
    assert ran.code == 2
    assert "nothing on stdin" in ran.err


@pytest.mark.usefixtures("home")
def test_without_a_kernel_it_brings_its_own_and_leaves_nothing_behind(
    start: Start, home: Path
) -> None:
    ran = start("chat", "Name a sea.").end()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("You said: Name a sea.")
    assert sorted(path.name for path in (home / "run").iterdir()) == ["kernel.lock"]


def test_what_comes_through_a_pipe_follows_the_message(home: Path, start: Start) -> None:
    with serving(home):
        piped = start("chat", "Sum up:", "--json", stdin="the notes\n").end()
        assert "Sum up: the notes" in str(piped.rows()[0]["text"])
        assert "the notes" in start("chat", stdin="the notes\n").end().out


def test_the_chat_is_a_process_while_it_lasts(
    served: Served, terminal: Terminals, aios: Aios
) -> None:
    chat = terminal("chat")
    chat.read_until("> ")
    assert aios("ps", "--json").rows() == []
    chat.type("hello\r")
    chat.read_until("tokens in")
    (row,) = aios("ps", "--json").rows()
    assert (row["name"], row["kind"], row["n_calls"]) == ("chat", "guest", 1)
    chat.type("/exit\r")
    assert chat.end().code == 0
    assert aios("ps", "--json").rows() == []
    assert served.kernel.table.n_alive == 1


@pytest.mark.usefixtures("served")
def test_a_conversation_remembers_until_it_is_reset(terminal: Terminals) -> None:
    chat = terminal("chat", "--max-tokens", "5")
    chat.read_until("> ")
    counts = []
    for line in ("first\r", "second\r", "/reset\r", "first\r"):
        chat.type(line)
        shown = chat.read_until("> ")
        if "tokens in" in shown:
            counts.append(int(shown.partition("tokens in")[0].rpartition("[")[2]))
    assert counts[1] > counts[0] == counts[2]
    chat.type("/system be brief\r")
    assert "'be brief'" in chat.read_until("> ")
    chat.type("/what\r")
    assert "/reset forgets" in chat.read_until("> ")
    chat.type("\x04")
    assert chat.end().code == 0


def test_ctrl_c_breaks_the_answer_off_and_not_the_conversation(
    home: Path, terminal: Terminals
) -> None:
    with serving(home, script=SLOW) as served:
        chat = terminal("chat", "--max-tokens", "5000")
        chat.read_until("> ")
        chat.press_until("\x03", "/exit or Ctrl-D leaves")
        chat.read_until("> ")
        chat.type("talk\r")
        chat.read_until("You said")
        chat.type("\x03")
        chat.read_until("broken off")
        chat.read_until("> ")
        assert served.kernel.info().n_in_flight == 0
        chat.type("again\r")
        chat.read_until("You said: again")
        chat.type("\x03")
        chat.read_until("> ")
        chat.type("/exit\r")
        assert chat.end().code == 0


def test_an_error_ends_the_answer_and_not_the_conversation(home: Path, terminal: Terminals) -> None:
    with serving(home, script=Script(fail_after_tokens=0)):
        chat = terminal("chat")
        chat.read_until("> ")
        chat.type("one\r")
        assert "breaks the engine" in chat.read_until("> ")
        chat.type("/exit\r")
        assert chat.end().code == 0


def test_an_error_in_the_middle_of_an_answer_stands_on_a_line_of_its_own(
    home: Path, aios: Aios
) -> None:
    with serving(home, script=Script(answer_tokens=20, fail_after_tokens=5)):
        ran = aios("chat", "one")
        assert ran.code != 0
        assert ran.out.strip()
        assert ran.out.endswith("\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_single_answer(
    home: Path, start: Start, number: signal.Signals, code: int
) -> None:
    with serving(home, script=SLOW) as served:
        running = start("chat", "talk", "--max-tokens", "5000")
        assert running.process.stdout is not None
        assert running.process.stdout.read(1)
        running.signal(number)
        ran = running.end()
        assert ran.code == code
        assert "Traceback" not in ran.err
        assert served.kernel.table.n_alive == 1
