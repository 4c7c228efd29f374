import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.abi.access import Decision, Principal, Request, Resource, Verdict
from aios.errors import ConfigError
from aios.kernel.access.policy import ACTIONS, STRICTNESS, TAINTED, Policies, Source, digest_of
from aios.kernel.access.policyfiles import PROFILES, profile_source

ANN = Principal("ann", "owner", "program", "/programs/ann")
BOB = Principal("bob", "owner", "guest")
INIT = Principal("init", "owner", "init")
ALL = Source("all", '@id("any") permit(principal, action, resource);')


def policies(text: str, *more: Source) -> Policies:
    return Policies([Source("mine", text), *more])


def on_path(path: str, action: str = "file.read") -> Request:
    return Request(action, Resource("Path", path))


def run_of(tool: str, effect: str, *, is_own: bool = False, is_tainted: bool = False) -> Request:
    return Request("tool.run", Resource("Tool", tool), effect, is_own=is_own, is_tainted=is_tainted)


def test_what_no_policy_permits_is_denied_and_the_reason_says_so() -> None:
    decision = policies("").decide([ANN], Request("model.use"))
    assert decision.verdict is Verdict.DENY
    assert decision.policies == ()
    assert "no policy permits ann" in decision.reasons[0]


def test_one_that_forbids_wins_over_all_that_permit_and_is_named() -> None:
    found = policies('@id("secret") forbid(principal, action, resource in Path::"/shared/s");', ALL)
    decision = found.decide([ANN], on_path("/shared/s/deep/er/key"))
    assert decision == Decision(
        Verdict.DENY,
        (
            "mine.secret forbids ann (program) `file.read` on Path /shared/s/deep/er/key (effect pure)",
        ),
        ("mine.secret",),
    )
    assert found.decide([ANN], on_path("/shared/s")).verdict is Verdict.DENY
    assert found.decide([ANN], on_path("/shared/secrets")).verdict is Verdict.ALLOW


def test_asking_wins_over_permitting_and_forbidding_over_asking() -> None:
    ask = '@id("q") @decide("ask") permit(principal, action == Action::"tool.run", resource);'
    assert policies(ask, ALL).decide([ANN], run_of("t", "pure")).policies == ("mine.q",)
    both = f'{ask} forbid(principal, action, resource == Tool::"t");'
    assert policies(both, ALL).decide([ANN], run_of("t", "pure")).verdict is Verdict.DENY
    assert policies(both, ALL).decide([ANN], run_of("u", "pure")).verdict is Verdict.ASK


def test_principals_are_known_by_name_owner_kind_and_program() -> None:
    for text in (
        'permit(principal == Agent::"ann", action, resource);',
        'permit(principal in Program::"/programs/ann", action, resource);',
        'permit(principal in Kind::"program", action, resource);',
        'permit(principal, action, resource) when { principal.name like "an*" };',
    ):
        found = policies(text)
        assert found.decide([ANN], Request("model.use")).is_allowed, text
        assert not found.decide([BOB], Request("model.use")).is_allowed, text


def test_a_policy_that_cannot_be_evaluated_denies_for_it_may_have_forbidden() -> None:
    found = policies('forbid(principal, action, resource) when { resource.path == "/x" };', ALL)
    decision = found.decide([ANN], Request("model.use"))
    assert decision.verdict is Verdict.DENY
    assert "cannot be evaluated" in decision.reasons[0]


@pytest.mark.parametrize(
    ("condition", "wrong"),
    [
        ('context.efect == "pure"', "context.efect"),
        ("context has is_own && !(principal has colour)", "principal.colour"),
        ('[resource["paths"]].contains("/x")', "resource.paths"),
        ("action.name == context.effect", "action.name"),
    ],
)
def test_what_no_request_has_is_refused_before_it_denies_everything(
    condition: str, wrong: str
) -> None:
    with pytest.raises(ConfigError, match=f"looks at {wrong}, which does not exist"):
        policies(f"permit(principal, action, resource) when {{ {condition} }};", ALL)


def test_names_with_quotes_and_newlines_are_names_and_no_cedar() -> None:
    evil = Principal('x", "owner', 'a"} forbid\n', "guest")
    found = policies('permit(principal == Agent::"init", action, resource);')
    assert not found.decide([evil], Request("model.use")).is_allowed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("permit(principal", "cannot be read"),
        ('permit(principal == ?principal, action, resource);', "templates"),
        ('@descide("ask") permit(principal, action, resource);', "@descide"),
        ('@decide("maybe") permit(principal, action, resource);', "only one"),
        ('@decide("ask") forbid(principal, action, resource);', "only one"),
        ('permit(principal, action == Action::"file.raed", resource);', "file.raed"),
        ('forbid(principal, action, resource == Tol::"shell");', "Tol::"),
        ('@id("a") permit(principal,action,resource); @id("a") forbid(principal,action,resource);', "mine.a"),
    ],
)  # fmt: skip
def test_a_text_that_would_not_mean_what_it_says_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match="mine") as caught:
        policies(text)
    assert why in caught.value.message


def test_a_decision_is_remembered_and_the_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = policies("", ALL)
    for _ in range(3):
        found.decide([ANN], Request("model.use", digest=digest_of({"n": _})))
    assert found.n_evaluated == 1
    monkeypatch.setattr("aios.kernel.access.policy.MAX_KEPT", 10)
    for n in range(50):
        found.decide([ANN], on_path(f"/shared/{n}"))
    assert found.statistics()["n_kept"] <= 10


def test_what_cannot_be_undone_on_tainted_arguments_is_asked_in_every_profile() -> None:
    for profile in PROFILES:
        found = Policies([profile_source(profile)])
        for is_own in (False, True):
            decision = found.decide(
                [ANN], run_of("t", "irreversible", is_own=is_own, is_tainted=True)
            )
            assert decision.verdict is not Verdict.ALLOW, profile
    assert Policies([profile_source("full")]).decide(
        [ANN], run_of("t", "irreversible", is_tainted=True)
    ).policies == (TAINTED,)


@pytest.mark.parametrize(
    ("profile", "read", "write", "undoable", "final", "own"),
    [
        ("read-only", "allow", "deny", "deny", "deny", "deny"),
        ("workspace", "allow", "allow", "allow", "ask", "allow"),
        ("full", "allow", "allow", "allow", "allow", "allow"),
    ],
)
def test_the_shipped_profiles_say_what_their_names_say(
    profile: str, read: str, write: str, undoable: str, final: str, own: str
) -> None:
    found = Policies([profile_source(profile)])
    asked = {
        read: on_path("/shared/a"),
        write: on_path("/shared/a", "file.write"),
    }
    for verdict, request in asked.items():
        assert found.decide([ANN], request).verdict.value == verdict
    assert found.decide([ANN], run_of("t", "reversible")).verdict.value == undoable
    assert found.decide([ANN], run_of("t", "irreversible")).verdict.value == final
    assert found.decide([ANN], run_of("t", "irreversible", is_own=True)).verdict.value == own
    assert found.decide([INIT], run_of("t", "irreversible")).verdict is Verdict.ALLOW
    assert found.decide([INIT], on_path("/shared/a", "file.write")).verdict is Verdict.ALLOW


def test_equal_arguments_have_one_digest_and_others_another() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of(json.loads('{"b": 2, "a": 1}'))
    assert digest_of({"a": 1}) != digest_of({"a": "1"})


PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(["ann", "bob", "cy"]),
    st.sampled_from(["owner", "bob"]),
    st.sampled_from(["program", "guest", "task"]),
    st.sampled_from(["", "/p"]),
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["file.read", "model.use", "tool.run"]),
    st.sampled_from([Resource(), Resource("Path", "/shared/a/b"), Resource("Tool", "t")]),
    st.sampled_from(["pure", "irreversible"]),
    st.booleans(),
    st.booleans(),
)
CLAUSES = st.tuples(
    st.sampled_from(["permit", '@decide("ask") permit', "forbid"]),
    st.sampled_from(
        ["principal", 'principal == Agent::"ann"', 'principal in Group::"bob"', 'principal in Kind::"guest"']
    ),
    st.sampled_from(["action", 'action == Action::"file.read"', 'action == Action::"tool.run"']),
    st.sampled_from(["resource", 'resource in Path::"/shared/a"', 'resource == Tool::"t"']),
    st.sampled_from(["", " when { context.is_own }", ' when { context.effect == "pure" }']),
).map(lambda each: f"{each[0]}({each[1]}, {each[2]}, {each[3]}){each[4]};")  # fmt: skip


@given(st.lists(CLAUSES, max_size=6), st.lists(PRINCIPALS, min_size=1, max_size=4), REQUESTS)
def test_a_child_may_nothing_that_one_above_it_may_not(
    clauses: list[str], principals: list[Principal], request: Request
) -> None:
    found = policies("\n".join(clauses))
    child = found.decide(principals, request)
    for n in range(1, len(principals)):
        above = found.decide(principals[:n], request)
        assert STRICTNESS[child.verdict] >= STRICTNESS[above.verdict]


@given(st.lists(CLAUSES, max_size=6), CLAUSES, PRINCIPALS, REQUESTS)
def test_taking_a_permission_away_or_adding_a_ban_never_allows_more(
    clauses: list[str], one: str, who: Principal, request: Request
) -> None:
    less, more = policies("\n".join(clauses)), policies("\n".join([*clauses, one]))
    before, after = less.decide([who], request), more.decide([who], request)
    if one.startswith("forbid"):
        assert STRICTNESS[after.verdict] >= STRICTNESS[before.verdict]
    elif before.verdict is Verdict.ALLOW and "decide" not in one:
        assert after.verdict is Verdict.ALLOW


def test_every_right_of_the_table_is_an_action() -> None:
    found = policies("", ALL)
    for action in ACTIONS:
        assert found.decide([ANN], Request(action)).is_allowed
    assert not found.decide([ANN], Request("no.such")).is_allowed


heads = st.sampled_from(
    [
        "resource",
        'resource == Path::"/a"',
        'resource in Path::"/a/b"',
        'resource == Path::"/a/b/c.md"',
        'resource is Path in Path::"/"',
        'resource in Path::"/a"',
        'resource == Tool::"t"',
        'resource == Path::"/a/\\0"',
    ]
)
conditions = st.sampled_from(
    [
        "",
        'when { context.effect == "pure" }',
        'unless { resource is Path && resource.path like "*.md" }',
        'when { [Path::"/b"].contains(resource) }',
    ]
)
rules = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), st.sampled_from(["action", 'action == Action::"file.read"']), heads, conditions),
    max_size=4,
)  # fmt: skip
paths = st.lists(st.sampled_from(["a", "b", "c.md", "d"]), max_size=4).map(
    lambda p: "/" + "/".join(p)
)


@given(rules, paths, st.sampled_from(["file.read", "file.write"]))
def test_a_path_is_judged_as_one_that_no_policy_tells_from_it(
    rules: list[tuple[str, str, str, str]], path: str, action: str
) -> None:
    text = "".join(
        f"{effect}(principal, {on}, {head}) {condition};" for effect, on, head, condition in rules
    )
    found = policies(text)
    like = found.like(action, path)
    said = [found.decide([ANN], on_path(each, action)) for each in (path, like)]
    assert said[0].verdict is said[1].verdict, f"{path} and {like!r} under {text}"
    assert said[0].policies == said[1].policies


def test_few_decisions_answer_for_all_files_that_no_policy_names() -> None:
    found = policies('forbid(principal, action, resource in Path::"/shared/s");', ALL)
    likes = {found.like("file.read", f"/shared/{number}/a") for number in range(1_000)}
    assert len(likes) == 1
    assert found.like("file.read", "/shared/s/a") not in likes


def test_agents_that_no_policy_tells_apart_share_decisions() -> None:
    ann, bob = Principal("ann", "owner", "task"), Principal("bob", "owner", "task")
    guest = Principal("eve", "eve", "guest")
    policies = Policies([Source("mine", 'permit(principal == Agent::"ann", action, resource);')])
    assert policies.like_agents((bob,)) == policies.like_agents((Principal("x", "owner", "task"),))
    assert policies.like_agents((ann,)) == (ann,), "a policy names it"
    assert policies.like_agents((bob,)) != policies.like_agents((guest,))
    assert policies.like_agents((bob, ann, bob, bob)) == (*policies.like_agents((bob,)), ann), (
        "many generations are asked for once"
    )
    for looking in (
        'permit(principal, action, resource) when { principal.name like "a*" };',
        'permit(principal, action, resource) when { principal == Agent::"ann" };',
        'permit(principal, action, resource) unless { principal in Group::"x" };',
        "permit(principal, action, resource) when { {who: principal}.who has name };",
    ):
        assert Policies([Source("mine", looking)]).like_agents((bob,)) == (bob,), looking
    kinds = 'permit(principal, action, resource) when { principal.kind == "task" && principal.owner != "x" };'
    assert Policies([Source("mine", kinds)]).like_agents((bob,)) != (bob,)


@settings(max_examples=40)
@given(st.data())
def test_a_made_up_name_is_allowed_what_the_true_one_is(data: st.DataObject) -> None:
    """Whatever the policies look at."""
    parts = (
        'principal == Agent::"ann"', "principal", 'principal in Kind::"task"', 'principal in Group::"eve"',
    )  # fmt: skip
    looks = (
        "", 'when { principal.name == "bob" }', 'when { principal.kind == "guest" }',
        'unless { principal.owner == "eve" }', 'when { principal in Agent::"ann" }',
    )  # fmt: skip
    effects = st.sampled_from(["permit", "forbid"])
    written = data.draw(
        st.lists(st.tuples(effects, st.sampled_from(parts), st.sampled_from(looks)), max_size=4)
    )
    text = "".join(f"{effect}({who}, action, resource) {look};" for effect, who, look in written)
    policies = Policies([Source("mine", text)])
    for name in ("ann", "bob", "eve"):
        asking = (
            Principal(
                name, "eve" if name == "eve" else "owner", "guest" if name == "eve" else "task"
            ),
        )
        request = Request("file.read", Resource("Path", "/shared/a"))
        true = policies.decide(asking, request)
        assert policies.decide(policies.like_agents(asking), request).verdict is true.verdict
