"""What a server wrote to its standard error, for people; the rest of stdio is in test_servers.py, with servers that run."""

from aios.kernel.tools.mcp.stdio import MAX_COMPLAINT_CHARS, Complaint


def test_of_a_long_complaint_the_last_words_are_kept_whole() -> None:
    said = Complaint()
    said.add(b"no such module\n")
    assert said.text == "no such module"
    said.add(b"traceback " * MAX_COMPLAINT_CHARS)
    dots, first, *_ = said.text.split()
    assert (dots, first) == ("...", "traceback")
    assert len(said.text) <= MAX_COMPLAINT_CHARS + len("... ")
