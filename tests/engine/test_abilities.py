"""What a job needs of an engine."""

import pytest
from tests.engine.jobs import ADD, chat, with_tools

from aios.abi.types import (
    ImagePart,
    JsonSchema,
    Message,
    Regex,
    Role,
    Sampling,
    TextPart,
    ToolChoice,
)
from aios.engine.abilities import can_go_on, check_abilities, needed_abilities
from aios.engine.base import Ability, Capabilities, ChatPrompt, Job, TextPrompt
from aios.errors import Unsupported

SEEN = Message(Role.USER, (TextPart("x"), ImagePart("https://example.org/a.png")))


@pytest.mark.parametrize(
    ("job", "needed"),
    [
        (chat(), {Ability.CHAT}),
        (Job(TextPrompt("a")), {Ability.COMPLETE}),
        (with_tools("a", ToolChoice(), ADD), {Ability.CHAT, Ability.TOOLS}),
        (with_tools("a", ToolChoice("none"), ADD), {Ability.CHAT}),
        (chat(prompt=ChatPrompt((SEEN,))), {Ability.CHAT, Ability.IMAGES}),
        (chat(constraint=JsonSchema({})), {Ability.CHAT, Ability.JSON_SCHEMA}),
        (chat(constraint=Regex("a")), {Ability.CHAT, Ability.REGEX}),
        (chat(top_logprobs=0), {Ability.CHAT, Ability.LOGPROBS}),
        (chat(sampling=Sampling(logit_bias={1: 0.5})), {Ability.CHAT, Ability.LOGIT_BIAS}),
    ],
)
def test_each_wish_needs_its_ability(job: Job, needed: set[Ability]) -> None:
    assert needed_abilities(job) == needed


def test_only_what_no_grammar_holds_can_go_on_from_a_text() -> None:
    assert can_go_on(chat())
    assert can_go_on(Job(TextPrompt("a")))
    assert not can_go_on(chat(constraint=Regex("a")))
    assert not can_go_on(with_tools("a", ToolChoice(), ADD))


def test_a_refusal_names_what_is_missing_and_what_there_is() -> None:
    offer = Capabilities("tiny", 10, 1, frozenset({Ability.CHAT}))
    check_abilities(frozenset({Ability.CHAT}), offer)
    with pytest.raises(Unsupported, match=r"tiny.*regex, tools") as caught:
        check_abilities(frozenset({Ability.TOOLS, Ability.REGEX, Ability.CHAT}), offer)
    assert "chat" in caught.value.hint
