"""Why a search went by words alone, and what would let it go by meaning, too."""

from typing import Literal

from aios.abi.memory import MemoryUsed
from aios.sdk.blocking import Client

Searched = Literal["notes", "files"]

ONLY_WORDS = "only words were compared"
INSTALL = "pip install 'aios-kernel[memory]' and start the kernel anew"


def why_only_words(client: Client, embedder: str, of: Searched) -> str:
    """What to tell of a search that names this embedder; empty if it compared meanings. The kernel is asked only if it did not."""
    return "" if embedder else words_only(client.memory.usage(), of)


def words_only(used: MemoryUsed, of: Searched) -> str:
    """Why nothing but words was compared, and the cure. Files are never sent to an engine: what is far is for notes only."""
    is_far = used.setting == "engine"
    if used.setting == "none":
        return f"{ONLY_WORDS}: memory.embedder is none; `auto` compares meanings, once the kernel has started anew"
    if is_far and of == "files":
        return f"{ONLY_WORDS}: the engine is asked for notes only, and wordllama is not installed for files; {INSTALL}"
    if used.embedder:
        return f"{ONLY_WORDS}: {used.embedder} did not answer in time; ask again, or look at the engine that serves it"
    if is_far:
        return f"{ONLY_WORDS}: no engine has answered yet that embeds (memory.embedder is engine); see `aios mem stat`"
    return f"{ONLY_WORDS}: wordllama is not installed; {INSTALL}"
