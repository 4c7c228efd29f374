import json

import pytest

from aios.abi.call import Done
from aios.abi.calls import Chat, GetPid, Log, Spawn
from aios.abi.gate import Fault
from aios.abi.links import LinkInfo, LinkInfos
from aios.abi.recovery import RandomBytes, Restart
from aios.abi.tools import ToolRun
from aios.abi.types import Message, Role
from aios.kernel.journal.redaction import Redaction
from aios.kernel.journal.texts import HIDDEN


def test_what_has_no_secret_is_the_same_object() -> None:
    call, answer = GetPid(), Done()
    assert Redaction(["swordfish"]).call(call) is call
    assert Redaction(["swordfish"]).answer(answer) is answer


def test_a_short_value_hides_nothing() -> None:
    assert Redaction(["1", "true"]).call(Log(text="1 is true")) == Log(text="1 is true")


def test_a_longer_secret_goes_before_its_own_beginning() -> None:
    hidden = Redaction(["secret", "secret-and-more"]).call(Log(text="a secret-and-more b"))
    assert hidden == Log(text=f"a {HIDDEN} b")


def test_bytes_and_faults_are_gone_over_too() -> None:
    redaction = Redaction(["swordfish"])
    assert redaction.answer(RandomBytes(b"\xffswordfish")) == RandomBytes(b"\xff(hidden)")
    assert redaction.fault(Fault("x", "no swordfish", "")).message == f"no {HIDDEN}"


def test_the_token_of_a_link_is_its_secret_part() -> None:
    link = LinkInfo("0" * 16, "/shared/a", 1, 2.0, "abc")
    assert Redaction().answer(LinkInfos((link,))) == LinkInfos(
        (LinkInfo("0" * 16, "/shared/a", 1, 2.0),)
    )


PASSED = 'pa"ss\nwörd/one'


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_secret_is_hidden_in_json_too(depth: int, is_ascii: bool) -> None:
    text = PASSED
    for _ in range(depth):
        text = json.dumps({"key": text}, ensure_ascii=is_ascii)
    assert "one" not in Redaction([PASSED]).text(text)


def test_names_of_values_are_gone_over_too() -> None:
    call = ToolRun("a/b", {"swordfish": {"a swordfish": 1}})
    assert Redaction(["swordfish"]).call(call) == ToolRun("a/b", {HIDDEN: {f"a {HIDDEN}": 1}})


def test_where_only_a_name_may_stand_one_stands() -> None:
    assert Redaction(["swordfish"]).call(ToolRun("a/swordfish")) == ToolRun("a/hidden")


def test_what_cannot_be_hidden_in_its_place_is_left_out_whole() -> None:
    link = LinkInfos((LinkInfo("0123456789abcdef", "/shared/a", 1, 2.0),))
    assert Redaction(["0123456789abcdef"]).answer(link) is None


@pytest.mark.parametrize("word", ["assistant", "on-failure", "chat", "messages", "assist"])
def test_what_aios_itself_says_is_no_secret(word: str) -> None:
    for call in (
        Chat(messages=(Message(Role.ASSISTANT, "hello"),)),
        Spawn("x", restart=Restart("on-failure")),
    ):
        assert Redaction([word]).call(call) is call


def test_a_key_without_its_end_is_hidden_as_far_as_it_goes() -> None:
    text = "-----BEGIN RSA PRIVATE KEY-----\\nMIIEow+/a==\nQ9: cut off"
    assert Redaction().text(text) == f"{HIDDEN}: cut off"
