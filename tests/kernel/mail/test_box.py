from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aios.abi.mail import Letter
from aios.abi.types import Pid
from aios.kernel.mail.box import Box, Match, letter_bytes


def letter(
    number: int, *, sender: int = 2, body: str = "x", topic: str = "", to: int = 3
) -> Letter:
    return Letter(number, Pid(sender), "someone", Pid(to), body, 0.0, topic=topic)


def test_letters_come_out_in_the_order_in_which_they_came() -> None:
    box = Box(10, 1 << 20)
    for number in (1, 2, 3):
        box.put(letter(number))
    assert [each.id for each in box.take(Match(), 2)] == [1, 2]
    assert [each.id for each in box.take(Match(), 9)] == [3]
    assert box.take(Match(), 1) == ()


def test_only_what_matches_is_taken_and_the_rest_keeps_its_order() -> None:
    box = Box(10, 1 << 20)
    box.put(letter(1, sender=2))
    box.put(letter(2, sender=4, topic="news"))
    box.put(letter(3, sender=2, topic="news"))
    assert [each.id for each in box.take(Match(sender=2, topic="news"), 9)] == [3]
    assert [each.id for each in box.take(Match(), 9)] == [1, 2]


def test_a_letter_that_is_larger_than_the_box_fits_an_empty_one() -> None:
    box = Box(10, 100)
    huge = letter(1, body="x" * 1000)
    assert box.has_room(huge)
    box.put(huge)
    assert not box.has_room(letter(2, body=""))


@given(st.text())
def test_a_letter_counts_for_more_than_its_text(body: str) -> None:
    assert letter_bytes(letter(1, body=body)) > len(body)


class Mailing(RuleBasedStateMachine):
    """A box against a plain list: what goes in comes out once, in order, within the bounds."""

    @initialize(max_letters=st.integers(1, 5), max_bytes=st.integers(1, 1200))
    def begin(self, max_letters: int, max_bytes: int) -> None:
        self.box = Box(max_letters, max_bytes)
        self.model: list[Letter] = []
        self.n_letters = 0

    @rule(
        sender=st.integers(2, 4), body=st.text(max_size=300), topic=st.sampled_from(["", "a", "b"])
    )
    def put(self, sender: int, body: str, topic: str) -> None:
        self.n_letters += 1
        new = letter(self.n_letters, sender=sender, body=body, topic=topic)
        if self.box.has_room(new):
            self.box.put(new)
            self.model.append(new)

    @rule(
        sender=st.none() | st.integers(2, 4),
        topic=st.none() | st.sampled_from(["", "a", "b"]),
        limit=st.integers(1, 3),
    )
    def take(self, sender: int | None, topic: str | None, limit: int) -> None:
        match = Match(sender=sender, topic=topic)
        expected = [each for each in self.model if match.fits(each)][:limit]
        assert list(self.box.take(match, limit)) == expected
        self.model = [each for each in self.model if each not in expected]

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "box"):
            self.box.check_invariants()
            assert list(self.box) == self.model
            assert len(self.box) <= self.box.max_letters
            assert self.box.size_bytes <= self.box.max_bytes or len(self.box) == 1


TestMailing = Mailing.TestCase
