import json

import cedarpy
import pytest

from aios.kernel.access.naming import find_unknown, is_whole_path
from aios.kernel.access.policy import ACTIONS


def unknown_in(text: str) -> str:
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    found = find_unknown(policy, ACTIONS)
    if found is None:
        return ""
    assert found[1], "it says what there is instead"
    return found[0]


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ('forbid(principal in Kind::"robot", action, resource);', 'Kind::"robot"'),
        ('forbid(principal == Agnet::"ann", action, resource);', "Agnet::"),
        ('forbid(principal in Path::"/shared", action, resource);', "Path::"),
        ('forbid(principal is Program in Kind::"x", action, resource);', 'Kind::"x"'),
        ('forbid(principal, action in [Action::"file.read", Action::"file.raed"], resource);', 'Action::"file.raed"'),
        ('forbid(principal, action, resource == Tol::"shell");', "Tol::"),
        ('forbid(principal, action, resource is Tol);', "Tol::"),
        ('forbid(principal, action, resource in Path::"/shared/vault/");', 'Path::"/shared/vault/"'),
        ('forbid(principal, action, resource in Path::"shared");', 'Path::"shared"'),
        ('forbid(principal, action, resource) when { resource in [Path::"/a", Pth::"/b"] };', "Pth::"),
        ('forbid(principal, action, resource) unless { principal in Kind::"gest" };', 'Kind::"gest"'),
        ('forbid(principal, action, resource) when { action == Action::"run" };', 'Action::"run"'),
        ('permit(principal in Program::"/p", action, resource in Path::"/") when { resource is Path || principal == Agent::"a" };', ""),
        ('permit(principal is Agent in Group::"owner", action == Action::"tool.run", resource is Tool);', ""),
    ],
)  # fmt: skip
def test_what_no_request_has_is_found_wherever_a_policy_names_it(text: str, unknown: str) -> None:
    assert unknown_in(text) == unknown


@pytest.mark.parametrize(
    ("path", "is_whole"),
    [("/", True), ("/a/b c", True), ("", False), ("a", False), ("/a/", False), ("/a//b", False), ("/./a", False), ("/a/..", False)],
)  # fmt: skip
def test_a_whole_path_is_written_as_requests_have_it(path: str, *, is_whole: bool) -> None:
    assert is_whole_path(path) is is_whole
