from hypothesis import given
from hypothesis import strategies as st

from aios.abi.types import Kind, Right
from aios.kernel.access.rights import DEFAULTS, granted


@given(st.sampled_from(Kind), st.frozensets(st.sampled_from(Right)))
def test_a_process_never_has_more_rights_than_its_parent(
    kind: Kind, parent: frozenset[Right]
) -> None:
    assert granted(kind, parent) <= parent


@given(st.sampled_from(Kind), st.frozensets(st.sampled_from(Right)), st.sampled_from(Right))
def test_taking_a_right_from_the_parent_never_gives_the_child_more(
    kind: Kind, parent: frozenset[Right], taken: Right
) -> None:
    assert granted(kind, parent - {taken}) <= granted(kind, parent)


def test_a_guest_cannot_run_programs_or_end_the_kernel() -> None:
    assert not DEFAULTS[Kind.GUEST] & {Right.SPAWN, Right.ADMIT, Right.SHUTDOWN}
