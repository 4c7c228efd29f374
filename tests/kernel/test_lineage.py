from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.lineage import agent_at, agent_of, home_of, path_of, sibling

names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._/-]*\Z")
lineages = st.lists(names, min_size=1, max_size=4)


@given(lineages)
def test_no_two_lineages_have_the_same_folder_or_key(lineage: list[str]) -> None:
    home = home_of(lineage)
    assert home.count("/") == len(lineage) + 1
    assert [part.replace("+", "/") for part in home.split("/")[2:]] == lineage
    assert agent_of(lineage).split("+") == lineage
    assert agent_at(home) == agent_of(lineage)
    assert home == f"/agents/{path_of(agent_of(lineage))}"


@given(names)
def test_what_the_owner_starts_is_kept_by_its_name_alone_as_it_always_was(name: str) -> None:
    assert agent_of([name]) == name


@given(lineages, names)
def test_a_sibling_has_the_same_above_it(lineage: list[str], name: str) -> None:
    assert sibling(agent_of(lineage), name) == agent_of([*lineage[:-1], name])


def test_init_has_no_key_and_the_root_as_its_folder() -> None:
    assert (agent_of([]), home_of([])) == ("", "/")
