from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aios.kernel.sandbox.profile import (
    Bounds,
    Files,
    Profile,
    bubblewrap_options,
    contains,
    is_within,
)

FILES = Files(passwd=3, group=4, seccomp=5, info=6, go=7)


def mounts(profile: Profile) -> list[tuple[str, str]]:
    """Kind and place of each mount below the workspace, in their order."""
    options = bubblewrap_options(profile, cwd=Path("/w"), files=FILES)
    kinds = {"--bind": 2, "--ro-bind": 2, "--tmpfs": 1, "--symlink": 2}
    found = [(word, options[i + kinds[word]]) for i, word in enumerate(options) if word in kinds]
    return [(kind, place) for kind, place in found if place.startswith(("/w", "/r"))]


def test_outer_mounts_come_before_inner_ones() -> None:
    profile = Profile(
        readable=(Path("/r/deep/er"), Path("/r")),
        writable=(Path("/r/deep"), Path("/w")),
        hidden=(Path("/w/secret"),),
    )
    assert mounts(profile) == [
        ("--ro-bind", "/r"),
        ("--bind", "/w"),
        ("--bind", "/r/deep"),
        ("--tmpfs", "/w/secret"),
    ]


def test_what_lies_in_a_mount_of_the_same_rights_is_no_mount_of_its_own() -> None:
    profile = Profile(readable=(Path("/w/file"),), writable=(Path("/w"), Path("/w/report.md")))
    assert mounts(profile) == [("--bind", "/w")]


def test_what_is_asked_for_inside_a_hidden_folder_is_seen() -> None:
    profile = Profile(
        readable=(Path("/w/home/run/sock"),), writable=(Path("/w"),), hidden=(Path("/w/home"),)
    )
    assert mounts(profile) == [
        ("--bind", "/w"),
        ("--tmpfs", "/w/home"),
        ("--ro-bind", "/w/home/run/sock"),
    ]


def test_what_is_hidden_but_not_seen_is_not_made() -> None:
    assert mounts(Profile(writable=(Path("/w"),), hidden=(Path("/r/x"),))) == [("--bind", "/w")]


def test_a_hidden_folder_that_is_asked_for_by_name_is_seen() -> None:
    profile = Profile(writable=(Path("/w"), Path("/w/k")), hidden=(Path("/w/k"),))
    assert ("--tmpfs", "/w/k") not in mounts(profile)


def test_a_file_is_blanked_and_a_link_is_made_only_where_it_is_not_seen() -> None:
    profile = Profile(
        readable=(Path("/r"),),
        links={Path("/w/python"): Path("/r/python"), Path("/r/link"): Path("/r/python")},
        blanked=(Path("/r/.netrc"),),
    )
    assert sorted(mounts(profile)) == [
        ("--ro-bind", "/r"),
        ("--ro-bind", "/r/.netrc"),
        ("--symlink", "/w/python"),
    ]


def test_the_network_is_never_shared_and_the_environment_is_whole() -> None:
    options = bubblewrap_options(Profile(env={"A": "1"}), cwd=Path("/w"), files=FILES)
    assert "--share-net" not in options
    assert {"--unshare-all", "--clearenv", "--new-session", "--die-with-parent"} <= set(options)
    assert ("A", "1") in pairwise(options)
    assert options.index("--clearenv") < options.index("--setenv")


def test_the_private_folder_for_temporary_files_is_bounded() -> None:
    options = bubblewrap_options(
        Profile(bounds=Bounds(tmp_bytes=12345)), cwd=Path("/w"), files=FILES
    )
    at = options.index("--tmpfs")
    assert options[at - 2 : at + 2] == ["--size", "12345", "--tmpfs", "/tmp"]  # noqa: S108 - a path inside


def test_containing_goes_by_whole_names() -> None:
    profile = Profile(writable=(Path("/w"),))
    assert contains(profile, Path("/w/a"))
    assert contains(profile, Path("/usr/bin"))
    assert not contains(profile, Path("/wide"))


names = st.lists(st.sampled_from(["a", "ab", "a.b", "b"]), max_size=3)


@given(names, names)
def test_a_path_is_within_another_as_pathlib_has_it(inner: list[str], outer: list[str]) -> None:
    path, root = Path("/", *inner), Path("/", *outer)
    assert is_within(path, root) == path.is_relative_to(root)


def test_folders_on_the_way_to_what_is_hidden_are_mounts_where_they_could_be_moved() -> None:
    hidden = (Path("/w/a/b/secret"), Path("/w/secret"), Path("/r/c/secret"))
    profile = Profile(readable=(Path("/r"), Path("/w/a")), writable=(Path("/w"),), hidden=hidden)
    assert mounts(profile) == [
        ("--ro-bind", "/r"),
        ("--bind", "/w"),
        ("--bind", "/w/a"),
        ("--tmpfs", "/w/secret"),
        ("--tmpfs", "/r/c/secret"),
        ("--bind", "/w/a/b"),
        ("--tmpfs", "/w/a/b/secret"),
    ]


def test_what_is_fixed_lies_read_only_on_top_of_what_is_changed_around_it() -> None:
    profile = Profile(
        readable=(Path("/w/a/venv"), Path("/w/a/venv/lib"), Path("/w/file")),
        writable=(Path("/w"), Path("/w/a/venv/cache")),
        fixed=(Path("/w/a/venv"),),
    )
    assert mounts(profile) == [
        ("--bind", "/w"),
        ("--bind", "/w/a"),
        ("--ro-bind", "/w/a/venv"),
        ("--bind", "/w/a/venv/cache"),
        ("--ro-bind", "/w/a/venv/lib"),
    ]


def test_a_copy_is_seen_at_the_place_that_it_is_for() -> None:
    profile = Profile(writable=(Path("/w"),), copies={Path("/r/kept"): Path("/x/copy")})
    assert mounts(profile) == [("--bind", "/w"), ("--ro-bind", "/r/kept")]
