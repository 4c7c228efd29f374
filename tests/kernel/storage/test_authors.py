from aios.kernel.storage.authors import KERNEL, OUTSIDE, OWNER, author_shown


def test_the_folder_of_init_is_shown_as_the_owner_and_all_else_as_it_is() -> None:
    assert author_shown("/") == OWNER
    for author in ("/agents/ann", "/agents/ann/kid", OUTSIDE, KERNEL, OWNER):
        assert author_shown(author) == author
