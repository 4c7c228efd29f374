from aios.abi.call import Done
from aios.abi.calls import GetPid, Log
from aios.abi.gate import Fault
from aios.abi.links import LinkInfo, LinkInfos
from aios.abi.recovery import RandomBytes
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
