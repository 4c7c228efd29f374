"""What a job asks of an engine, so that every engine refuses the same things with the same words."""

from aios.abi.types import ImagePart, JsonSchema, Regex
from aios.engine.base import Ability, Capabilities, ChatPrompt, Job
from aios.errors import Unsupported


def needed_abilities(job: Job) -> frozenset[Ability]:
    """Every ability without which the job cannot be done as asked."""
    needed = {Ability.CHAT if isinstance(job.prompt, ChatPrompt) else Ability.COMPLETE}
    if isinstance(job.prompt, ChatPrompt):
        if job.prompt.tools and job.prompt.tool_choice.mode != "none":
            needed.add(Ability.TOOLS)
        if has_images(job.prompt):
            needed.add(Ability.IMAGES)
    if isinstance(job.constraint, JsonSchema):
        needed.add(Ability.JSON_SCHEMA)
    if isinstance(job.constraint, Regex):
        needed.add(Ability.REGEX)
    if job.top_logprobs is not None:
        needed.add(Ability.LOGPROBS)
    if job.sampling.logit_bias:
        needed.add(Ability.LOGIT_BIAS)
    return frozenset(needed)


def can_go_on(job: Job) -> bool:
    """Whether a job can go on from the text it has brought: in the middle of a grammar or a tool call it cannot."""
    return job.constraint is None and not (isinstance(job.prompt, ChatPrompt) and job.prompt.tools)


def has_images(prompt: ChatPrompt) -> bool:
    """Whether any message shows an image."""
    return any(
        isinstance(part, ImagePart)
        for message in prompt.messages
        if not isinstance(message.content, str)
        for part in message.content
    )


def check_abilities(needed: frozenset[Ability], capabilities: Capabilities) -> None:
    """Refuse what the engine cannot do.

    Raises:
        Unsupported: Names what is missing and what there is.
    """
    missing = needed - capabilities.abilities
    if missing:
        raise Unsupported(
            f"the engine of `{capabilities.model}` cannot do {_names(missing)}",
            hint=f"it can do {_names(capabilities.abilities)}",
        )


def _names(abilities: frozenset[Ability]) -> str:
    return ", ".join(sorted(ability.value for ability in abilities)) or "nothing"
