"""One conversation, several ways on: each branch is a fork, which shares the messages and the pages of the trunk."""

import aios
from aios.sdk.blocking_contexts import BlockingContext

MOODS = ("a cheerful", "a gloomy", "a pompous")


def branch(trunk: BlockingContext, mood: str) -> str:
    """What one branch says, and how much of its prompt was not computed again."""
    with trunk.fork() as context:
        reply = context.chat(f"Tell me one sentence about it, as {mood} poet.", max_tokens=40)
    usage = reply.usage
    cached = f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens were there already"
    return f"{mood} poet ({cached}): {reply.text.strip()}"


def main(client: aios.blocking.Client, *, topic: str = "the sea") -> str:
    """Begin a conversation, then let it go on in a branch for each mood."""
    with client.context(system="You are a poet who answers in one sentence.") as trunk:
        trunk.chat(f"Let us talk about {topic}. What do you think of first?", max_tokens=60)
        return "\n".join(branch(trunk, mood) for mood in MOODS)


if __name__ == "__main__":
    aios.run(main)
