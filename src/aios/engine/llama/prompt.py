"""From a job to a generation: chat template, tokens, grammar, and the limit of the window."""

from collections.abc import Iterable
from threading import Lock

import numpy as np

from aios.engine.base import ChatPrompt, Job, Suspended, TextPrompt
from aios.engine.llama.binding import Model
from aios.engine.llama.generation import Carried, Generation, Speech
from aios.engine.llama.grammar import Matcher, Vocabulary
from aios.engine.llama.marks import cut, cuts_of
from aios.engine.llama.outbox import Reader
from aios.engine.llama.sampling import Sampler, Tokens
from aios.engine.llama.saved import saved_state
from aios.engine.llama.template import ChatTemplate, ToolMode
from aios.engine.llama.toolcalls import OPENING, ToolParser
from aios.engine.llama.toolgrammar import tool_constraint
from aios.engine.text import TextAssembler
from aios.errors import ContextWindowExceeded, InvalidCall, TooLarge

MAX_PARTS = 65_536
"""The most different parts between special tokens that a text may have that is only counted; each takes 80 us."""
NO_TOKENS = np.empty(0, np.int32)


class PromptCompiler:
    """Turns jobs into generations. Several threads may use it at once.

    Args:
        model: Gives vocabulary and chat template; must stay open.
        window_tokens: What prompt and output may take together.
    """

    def __init__(self, model: Model, *, window_tokens: int) -> None:
        self._model = model
        self._window_tokens = window_tokens
        self._eog_tokens = model.eog_tokens
        self._longest_piece_bytes = model.longest_piece_bytes
        self._template = ChatTemplate(
            model.chat_template,
            bos=model.token_text(model.bos),
            eos=model.token_text(model.eos),
            control_tokens=model.control_tokens,
        )
        self.note = self._template.note
        specials = model.special_tokens
        self._cuts = {
            True: cuts_of(specials),
            False: cuts_of([token for token in specials if not token.is_control]),
        }
        self._lock = Lock()
        self._vocabulary: Vocabulary | None = None

    def compile(self, job: Job, reader: Reader) -> Generation:
        """A generation at its beginning, or where it was cut off.

        Raises:
            ContextWindowExceeded: Prompt and one token of output do not fit.
            InvalidCall: A message makes no sense to the template, or a constraint cannot be compiled.
        """
        tokens, mode = self._prompt(job.prompt, is_bounded=True)
        self._check_window(len(tokens), n_output=1)
        carried = Carried(TextAssembler(job.stop), mode, _parser(job, mode))
        n_prompt = len(tokens)
        if job.begun is not None:
            tokens = np.concatenate([tokens, np.array(job.begun.tokens, np.int32)])
            self._check_window(len(tokens), n_output=1)
        generation = self._generation(
            job, tokens, n_prompt=n_prompt, carried=carried, reader=reader
        )
        generation.replay()
        return generation

    def resume(self, job: Job, suspended: Suspended, reader: Reader) -> Generation:
        """A generation where it was suspended: the tokens come from there, the rest from the job.

        Raises:
            InvalidCall: The state is not one of this engine's.
        """
        saved = saved_state(suspended)
        tokens = np.array(suspended.tokens, np.int32)
        n_prompt = len(tokens) - suspended.n_generated
        if n_prompt < 1:
            raise InvalidCall("the suspended state has no prompt")
        mode = saved.tool_mode
        carried = Carried(TextAssembler(job.stop), mode, _parser(job, mode))
        carried.n_reached, carried.n_prompt_computed = saved.n_reached, saved.n_prompt_computed
        generation = self._generation(
            job, tokens, n_prompt=n_prompt, carried=carried, reader=reader
        )
        generation.kept = saved.kept
        generation.replay()
        return generation

    def count_tokens(self, prompt: ChatPrompt) -> int:
        """Tokens of a conversation as the model sees it.

        Raises:
            InvalidCall: A message makes no sense to the template.
            TooLarge: There are more than `MAX_PARTS` different texts between special tokens.
        """
        return len(self.prompt_tokens(prompt))

    def prompt_tokens(self, prompt: ChatPrompt) -> Tokens:
        """A conversation as the model sees it, however long.

        Raises:
            InvalidCall: A message makes no sense to the template.
            TooLarge: There are more than `MAX_PARTS` different texts between special tokens.
        """
        tokens, _ = self._prompt(prompt, is_bounded=False)
        return tokens

    def text_tokens(self, text: str) -> Tokens:
        """The tokens of a text, control tokens in it read as text.

        Raises:
            TooLarge: There are more than `MAX_PARTS` different texts between special tokens.
        """
        return self._ids((text,), special=False, is_bounded=False)

    def embeddable(self, text: str) -> Tokens:
        """The tokens of a text that is to become a vector; at least one.

        Raises:
            ContextWindowExceeded: There are more than the window holds.
        """
        tokens = self._tokenized((text,), special=False, is_bounded=True)
        self._check_window(len(tokens), n_output=0)
        return tokens

    def _generation(
        self, job: Job, tokens: Tokens, *, n_prompt: int, carried: Carried, reader: Reader
    ) -> Generation:
        n_output = self._window_tokens - n_prompt
        if job.max_tokens is not None:
            n_output = min(n_output, max(job.max_tokens, 1))
        return Generation(
            start=tokens,
            n_prompt=n_prompt,
            n_max=n_prompt + n_output,
            sampler=Sampler(job.sampling),
            speech=self._speech(carried.tool_mode),
            carried=carried,
            reader=reader,
            matcher=self._matcher(job, carried.tool_mode),
            top_logprobs=job.top_logprobs,
        )

    def _speech(self, mode: ToolMode) -> Speech:
        """The meaning of tokens; where a control token opens a tool call, it is spelled out for the parser."""
        opening = OPENING.get(mode, "")
        tokens = self._model.tokenize(opening, special=True)
        shown = {int(tokens[0]): opening.encode()} if len(tokens) == 1 else {}
        return Speech(self._model.piece, self._eog_tokens, shown)

    def _prompt(
        self, prompt: ChatPrompt | TextPrompt, *, is_bounded: bool
    ) -> tuple[Tokens, ToolMode]:
        if isinstance(prompt, TextPrompt):
            tokens = self._tokenized((prompt.text,), special=True, is_bounded=is_bounded)
            return tokens, ToolMode.NONE
        rendered = self._template.render(prompt)
        tokens = self._tokenized(
            rendered.pieces, special=True, is_bounded=is_bounded, has_bos=rendered.has_bos
        )
        return tokens, rendered.tool_mode

    def _tokenized(
        self, pieces: Iterable[str], *, special: bool, is_bounded: bool, has_bos: bool = False
    ) -> Tokens:
        """The tokens of a prompt that comes in pieces, with the BOS that the model wants; at least one token."""
        ids = self._ids(tuple(pieces), special=special, is_bounded=is_bounded)
        if (self._model.adds_bos and not has_bos) or not len(ids):
            return np.concatenate([np.array([max(self._model.bos, 0)], np.int32), ids])
        return ids

    def _ids(self, pieces: tuple[str, ...], *, special: bool, is_bounded: bool) -> Tokens:
        """The tokens of pieces, each cut into parts before its special tokens; parts that are alike are tokenised once."""
        if is_bounded:  # do not cut a huge text into tokens only to find that there are too many
            n_chars = sum(len(piece) for piece in pieces)
            self._check_window(n_chars // self._longest_piece_bytes, n_output=0)
        parts = [part for piece in pieces for part in cut(piece, self._cuts[special])]
        texts = set(parts)
        if is_bounded:
            self._check_window(len(parts), n_output=0)
        elif len(texts) > MAX_PARTS:
            raise TooLarge(
                f"special tokens cut the text into {len(texts)} different parts; {MAX_PARTS} are counted at most",
                hint="count it in parts",
            )
        tokens = {text: self._model.tokenize(text, special=special) for text in texts}
        return np.concatenate([NO_TOKENS, *(tokens[part] for part in parts)])

    def _check_window(self, n_tokens: int, *, n_output: int) -> None:
        if n_tokens + n_output > self._window_tokens:
            raise ContextWindowExceeded(
                f"the prompt has at least {n_tokens} tokens; the window holds {self._window_tokens}, output included",
                hint="send less, or start with a larger engine.window_tokens",
            )

    def _matcher(self, job: Job, mode: ToolMode) -> Matcher | None:
        """The grammar of the output, at its beginning; None if the output is free."""
        if mode is ToolMode.NONE:
            return None if job.constraint is None else self._grammars().compile(job.constraint)
        assert isinstance(job.prompt, ChatPrompt)
        grammars = self._grammars()
        calls = tool_constraint(
            job.prompt, mode, find_special=grammars.find_special, content=job.constraint
        )
        constraint = calls or job.constraint
        return None if constraint is None else grammars.compile(constraint)

    def _grammars(self) -> Vocabulary:
        """The model's vocabulary as grammars see it, built when the first of them comes."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary.from_llama(
                    self._model.vocab,
                    n_vocab=self._model.n_vocab,
                    eos_tokens=sorted(self._eog_tokens),
                )
            return self._vocabulary


def _parser(job: Job, mode: ToolMode) -> ToolParser | None:
    if mode is ToolMode.NONE or not isinstance(job.prompt, ChatPrompt):
        return None
    return ToolParser.for_prompt(job.prompt, mode, seed=job.sampling.seed or 0)
