"""For who shows text to somebody and is cut off: of an answer that comes again from its beginning, only what is new is shown. Pure."""


class Unseen:
    """Takes the pieces of an answer and gives those parts that were not shown before.

        unseen = Unseen(shown)
        async for text in stream:
            show(unseen.feed(text))

    Args:
        shown: The text of the same answer that somebody has seen already.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._n_matched = 0
        self.is_new = False
        """The answer turned out otherwise than what was shown: all of it is given, and what was shown should be taken back."""

    def feed(self, text: str) -> str:
        """The next piece. Returns: what of the answer is to be shown now."""
        known = self._shown[self._n_matched : self._n_matched + len(text)]
        if self.is_new or not known:
            return text
        if text.startswith(known):
            self._n_matched += len(known)
            return text[len(known) :]
        self.is_new = True
        return self._shown[: self._n_matched] + text
