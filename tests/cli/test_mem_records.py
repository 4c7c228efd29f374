"""aios mem records against a kernel that runs."""

import pytest
from tests.cli.conftest import Aios, Served
from tests.kernel.mail.test_post import idle

from aios.cli import mem_records
from aios.kernel.memory import interactions
from aios.sdk.memory import Memory


def test_the_records_of_a_process_are_shown_also_after_its_end(served: Served, aios: Aios) -> None:
    kernel, call = served.kernel, served.portal.call
    pid = call(kernel.spawn_task, "reader", idle)
    memory = Memory(kernel.gate(pid))
    long = "a boat\n" * 40
    for text, kind in (("What\x1b[2J floats?", "asked"), (long, "said"), ("wood", "got")):
        call(memory.log, text, kind)
    shown = aios("mem", "records", "reader").out.splitlines()
    assert [line.split()[0] for line in shown] == ["NR", "1", "2", "3"]
    assert shown[1].endswith("asked  What[2J floats?")
    assert "\x1b" not in shown[1]
    assert "said   a boat a boat" in shown[2]
    assert shown[2].endswith("...")
    assert len(shown[2]) < 120
    assert len(aios("mem", "records", "read", "-n", "2").out.splitlines()) == 3
    assert "wood" not in aios("mem", "records", pid, "--first", "1", "-n", "2").out
    rows = aios("mem", "records", "reader", "--first", "2", "--json").rows()
    assert [(row["id"], row["kind"], row["text"]) for row in rows] == [
        (2, "said", long),
        (3, "got", "wood"),
    ]
    assert aios("kill", "reader").code == 0
    aios("wait", "reader")
    assert "wood" in aios("mem", "records", "reader").out
    assert call(memory_faults, served, pid) == 0


def memory_faults(served: Served, pid: int) -> int:
    return next(each for each in served.kernel.table if each.pid == pid).n_block_faults


def test_no_records_and_no_process_are_told(served: Served, aios: Aios) -> None:
    pid = served.portal.call(served.kernel.spawn_task, "reader", idle)
    none = aios("mem", "records", "reader")
    assert (none.code, none.out) == (0, "")
    assert none.err == "reader has no records\n"
    served.portal.call(Memory(served.kernel.gate(pid)).log, "one")
    beyond = aios("mem", "records", "reader", "--first", "2")
    assert beyond.err == "reader has no records from number 2 on\n"
    assert aios("mem", "records", "reader", "--first", "2", "--json").out == ""
    nobody = aios("mem", "records", "nobody")
    assert nobody.code == 4
    assert "no process 'nobody'" in nobody.err


@pytest.mark.parametrize("n_records", [2, 3, 6, 7, 50])
def test_many_records_are_read_in_pages(
    served: Served, aios: Aios, monkeypatch: pytest.MonkeyPatch, n_records: int
) -> None:
    monkeypatch.setattr(mem_records, "PAGE_RECORDS", 3)
    call = served.portal.call
    memory = Memory(served.kernel.gate(call(served.kernel.spawn_task, "reader", idle)))
    for number in range(1, 9):
        call(memory.log, str(number))
    rows = aios("mem", "records", "reader", "-n", n_records, "--json").rows()
    assert [row["id"] for row in rows] == list(range(max(1, 9 - n_records), 9))
    rows = aios("mem", "records", "reader", "-n", n_records, "--first", "2", "--json").rows()
    assert [row["id"] for row in rows] == list(range(2, min(9, 2 + n_records)))


def test_long_records_are_all_shown_whatever_an_answer_holds(
    served: Served, aios: Aios, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactions, "PAGE_BYTES", 100)
    call = served.portal.call
    memory = Memory(served.kernel.gate(call(served.kernel.spawn_task, "reader", idle)))
    for number in range(1, 9):
        call(memory.log, str(number) * 60)
    for options in ((), ("--first", "1")):
        rows = aios("mem", "records", "reader", *options, "--json").rows()
        assert [row["id"] for row in rows] == list(range(1, 9))
