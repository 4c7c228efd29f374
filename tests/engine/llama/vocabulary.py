"""A vocabulary without a model: one token for each byte, some longer ones, and special tokens."""

from collections.abc import Sequence

from llguidance import LLTokenizer, TokenizerWrapper

from aios.engine.llama.grammar import Vocabulary

WORDS = (b"hello", b" world", b'"name"', b'": "', b"true", b"{}", b"<tool", b"_call>", b"\n\n")
END = 256 + len(WORDS)


class ByteTokenizer:
    """What llguidance asks of a tokenizer; greedy over `tokens`."""

    bos_token_id = None

    def __init__(self, specials: Sequence[str]) -> None:
        self.tokens = [bytes([i]) for i in range(256)] + list(WORDS)
        self.eos_token_id = END
        self.tokens += [b"<end>", *(special.encode() for special in specials)]
        self.special_token_ids = list(range(END, len(self.tokens)))

    def __call__(self, text: bytes) -> list[int]:
        specials = self.tokens[END:]
        return [END + specials.index(text)] if text in specials else list(text)


def make_vocabulary(*specials: str) -> Vocabulary:
    """A vocabulary with these special tokens; they come after `END`, in this order."""
    return Vocabulary(LLTokenizer(TokenizerWrapper(ByteTokenizer(specials)), slices=[]))
