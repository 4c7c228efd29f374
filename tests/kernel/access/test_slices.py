import json

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.access import Principal, Request, Resource
from aios.kernel.access.policy import ACTIONS, Policies, Source
from aios.kernel.access.slices import MAX_SETS, Slices

WHO = st.sampled_from(
    [
        "principal",
        'principal == Agent::"ann"',
        'principal in Group::"owner"',
        'principal in Kind::"guest"',
        "principal is Agent",
        'principal is Agent in Program::"/p/ann"',
        'principal in Agent::"ann"',
    ]
)
WHAT = st.sampled_from(
    [
        "resource",
        'resource == Path::"/shared/a/b"',
        'resource in Path::"/shared/a"',
        'resource in Path::"/"',
        "resource is Path",
        'resource is Path in Path::"/shared"',
        'resource == Tool::"shell"',
        'resource in Process::"ann"',
    ]
)
ACTION = st.sampled_from(
    [
        "action",
        'action == Action::"file.read"',
        'action in [Action::"file.read", Action::"tool.run"]',
        'action == Action::"model.use"',
    ]
)
WHEN = st.sampled_from(
    [
        "",
        "when { context.is_tainted }",
        'unless { principal.kind == "guest" }',
        "when { principal.kind < 3 }",
        'when { resource in Path::"/shared" }',
    ]
)
POLICIES = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), WHO, ACTION, WHAT, WHEN), max_size=8
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["file.read", "tool.run", "model.use"]),
    st.sampled_from(
        [
            Resource("Path", "/shared/a/b"),
            Resource("Path", "/shared/a"),
            Resource("Path", "/agents/x"),
            Resource("Tool", "shell"),
            Resource("Process", "ann"),
            Resource(),
        ]
    ),
    is_tainted=st.booleans(),
)
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(["ann", "bob"]),
    st.sampled_from(["owner", "crew"]),
    st.sampled_from(["program", "guest"]),
    st.sampled_from(["", "/p/ann"]),
)


class Whole(Slices):
    """All policies, for every request."""

    def find(self, action: str, uids: object) -> cedarpy.PolicySet | None:
        assert uids
        return self._set(tuple(self._found)) if action in self._by_action else None


@given(POLICIES, st.lists(st.tuples(PRINCIPALS, REQUESTS), min_size=1, max_size=6))
@settings(max_examples=300)
def test_the_policies_that_are_left_out_would_have_made_no_difference(
    given: list[tuple[str, ...]], asked: list[tuple[Principal, Request]]
) -> None:
    text = "\n".join(
        f"{kind}({who}, {act}, {what}) {when};" for kind, who, act, what, when in given
    )
    sliced, whole = Policies([Source("t", text)]), Policies([Source("t", text)])
    whole._slices = Whole(whole._slices._found, ACTIONS)
    for principal, request in asked:
        assert sliced.decide((principal,), request) == whole.decide((principal,), request)


def test_what_is_kept_is_bounded_and_other_policies_are_not_looked_at() -> None:
    text = "\n".join(
        f'forbid(principal, action, resource in Path::"/shared/{n}");' for n in range(MAX_SETS + 9)
    )
    found = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    slices = Slices(found, ["file.read"])
    for n in range(MAX_SETS + 9):
        policies = slices.find("file.read", [("Agent", "ann"), ("Path", f"/shared/{n}")])
        assert policies is not None
        assert len(policies) == 1
        assert slices.find("file.read", [("Path", f"/shared/{n}")]) is policies
    assert len(slices._parsed) <= MAX_SETS
    assert slices.find("no.such", []) is None
