"""Constrained output: JSON Schema, regular expressions and Lark grammars as masks over the logits.

llguidance does the work. This file gives it the model's vocabulary, one whitespace policy, limits that keep a hostile
schema from stalling the engine, and errors that name the place in the schema.

A grammar costs nothing while its output is free; with the default model a mask takes 0.2 ms a token, most of it spent in
llguidance with the interpreter lock released.
"""

import json
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final, cast

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from msgspec import Struct
from numpy.typing import NDArray

from aios.abi.types import Constraint, JsonObject, JsonSchema, Regex
from aios.errors import InvalidCall, TooLarge

MAX_GRAMMAR_BYTES: Final = 1 << 18
MAX_SCHEMA_DEPTH: Final = 64  # llguidance's JSON reader gives up at 128
MAX_COMPILE_S: Final = 2.0  # of the thread's own, so that a busy machine makes nothing complex
MAX_CACHED: Final = 64
MAX_BLAMED: Final = 500  # subschemas that are tried in order to name the faulty one

JSON_LAYOUT: Final = {
    # As `json.dumps` writes, which is what models have read most. Where the layout is fixed, a small model cannot loop on
    # white space, and the engine could skip what is forced.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


class Lark(Struct, frozen=True):
    """A grammar in llguidance's dialect of Lark; only the engine writes these.

    `schemas` are the JSON schemas that went into it, each with what it belongs to, to name the faulty one if there is one.
    """

    text: str
    schemas: tuple[tuple[str, JsonObject], ...] = ()


class Matcher:
    """The state of one constrained output. One owner at a time: it is not safe to share between threads."""

    def __init__(self, matcher: LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._n_vocab = n_vocab
        self._words = np.zeros((n_vocab + 31) // 32, dtype=np.int32)

    def apply_mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to -inf, in place.

        Args:
            logits: One contiguous row, at least as long as the vocabulary.

        Raises:
            InvalidCall: The constraint became too complex at this point of the output, or a token that does not fit was
                accepted before. The engine is well.
        Cost: 0.2 ms (49,152 tokens), the interpreter lock mostly released.
        """
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        if self._matcher.is_error():
            raise InvalidCall(
                f"the output cannot go on under its constraint: {_brief(self._matcher.get_error())}",
                hint="use a simpler schema or pattern",
            )
        allowed = np.unpackbits(
            self._words.view(np.uint8), count=self._n_vocab, bitorder="little"
        ).view(np.bool_)
        row = logits[: self._n_vocab]
        np.copyto(row, -np.inf, where=~allowed)
        logits[self._n_vocab :] = -np.inf

    def accept(self, token: int) -> bool:
        """Advance by a token that was sampled; False when it does not fit, and then the matcher is of no more use."""
        return bool(self._matcher.consume_token(token))

    @property
    def is_done(self) -> bool:
        """Nothing but the end of the generation may come now."""
        return bool(self._matcher.is_stopped())

    @property
    def is_accepting(self) -> bool:
        """The output is whole as it stands, though it might go on."""
        return bool(self._matcher.is_accepting())

    def forced(self) -> tuple[int, ...]:
        """Tokens that must come next whatever the model thinks; often none."""
        return tuple(self._matcher.compute_ff_tokens())

    def fork(self) -> "Matcher":
        """An independent matcher at the same place. Cost: microseconds."""
        return Matcher(self._matcher.deep_copy(), self._n_vocab)


class Vocabulary:
    """The tokens of a model, prepared for masks, and the constraints compiled for it.

    Args:
        tokenizer: llguidance's view of the vocabulary.
    """

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._n_vocab = int(tokenizer.vocab_size)
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = Lock()  # engines compile in worker threads

    @classmethod
    def from_llama(cls, vocab: object, *, n_vocab: int, eos_tokens: Sequence[int]) -> "Vocabulary":
        """Read the vocabulary of a loaded model.

        Args:
            vocab: A `llama_vocab *`, which must outlive what is made here.
            n_vocab: The length of a row of logits.
            eos_tokens: Every token that ends a generation.

        Cost: 0.3 s for 49,152 tokens; once a model.
        """
        from llguidance.llamacpp import (  # noqa: PLC0415 - it loads llama.cpp, which those who bring another tokenizer need not have
            lltokenizer_from_vocab,
        )

        with warnings.catch_warnings():
            # llguidance 1.9 asks each token's attributes by a name that llama-cpp-python has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            tokenizer = lltokenizer_from_vocab(
                vocab,  # type: ignore[arg-type]  # an opaque handle here; llama.cpp itself checks nothing more
                n_vocab=n_vocab,
                eos_token=list(eos_tokens),
            )
        return cls(tokenizer)

    def find_special(self, text: str) -> int | None:
        """The special token with this text, such as `<tool_call>` in Qwen's vocabulary, or None."""
        tokens = self._tokenizer.tokenize_str(text, parse_special=True)
        is_one = len(tokens) == 1 and self._tokenizer.is_special_token(tokens[0])
        return tokens[0] if is_one else None

    def compile(self, constraint: Constraint | Lark) -> Matcher:
        """Prepare a constraint; the matcher stands at the beginning of the output.

        May be called from any thread, and should not be from the event loop: a large schema takes a second.

        Raises:
            InvalidCall: The schema or pattern is wrong, uses what is not supported, allows no output at all, or is too
                complex; the message names the place in the schema.
            TooLarge: It has more bytes than `MAX_GRAMMAR_BYTES`.
        """
        key = _key(constraint)
        with self._lock:
            found = self._compiled.get(key)
            if found is not None:
                self._compiled.move_to_end(key)
        # All outputs of a constraint share a lexer: where one of them filled it up, no other could begin.
        if found is None or _trouble_of(found.deep_copy()):
            found = self._compile_new(
                *key, constraint.schemas if isinstance(constraint, Lark) else ()
            )
            with self._lock:
                self._compiled[key] = found
                while len(self._compiled) > MAX_CACHED:
                    self._compiled.popitem(last=False)
        return Matcher(found.deep_copy(), self._n_vocab)

    def _compile_new(
        self, kind: str, text: str, schemas: tuple[tuple[str, JsonObject], ...] = ()
    ) -> LLMatcher:
        start_s = time.thread_time()
        matcher, error = self._build(kind, text)
        if error:
            for owner, schema in schemas:
                self._check_schema(owner, schema)
            where = self._blame(json.loads(text), error) if kind == "json_schema" else ""
            raise InvalidCall(
                f"the {_KINDS[kind]} cannot be used{where}: {error}", hint=_HINTS.get(kind, "")
            )
        assert matcher is not None
        # The first mask is where an oversized pattern shows; better here than in the engine's loop.
        probe = matcher.deep_copy()
        trouble = _trouble_of(probe)
        if trouble:
            raise InvalidCall(
                f"the {_KINDS[kind]} is too complex: {_brief(trouble)}",
                hint="use shorter repetitions and fewer alternatives",
            )
        if probe.is_stopped() and not probe.is_accepting():
            raise InvalidCall(f"the {_KINDS[kind]} allows no output at all")
        took_s = time.thread_time() - start_s
        if took_s > MAX_COMPILE_S:
            raise InvalidCall(
                f"the {_KINDS[kind]} is too complex: it took {took_s:.1f} s to prepare, the limit is {MAX_COMPILE_S} s",
                hint="use fewer properties and shorter repetitions",
            )
        return matcher

    def _check_schema(self, owner: str, schema: JsonObject) -> None:
        text = schema_text(schema)
        _, error = self._build("json_schema", text)
        if error:
            raise InvalidCall(
                f"{owner}: its JSON schema cannot be used{self._blame(schema, error)}: {error}",
                hint=_HINTS["json_schema"],
            )

    def _build(self, kind: str, text: str) -> tuple[LLMatcher | None, str]:
        """A matcher, or what is wrong with the grammar."""
        try:
            if kind == "json_schema":
                grammar = LLMatcher.grammar_from_json_schema(with_layout(json.loads(text)))
            elif kind == "regex":
                grammar = LLMatcher.grammar_from_regex(text)
            else:
                grammar = LLMatcher.grammar_from_lark(text)
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        except ValueError as error:
            return None, _brief(str(error))
        return (None, _brief(matcher.get_error())) if matcher.is_error() else (matcher, "")

    def _blame(self, schema: JsonObject, error: str) -> str:
        """Name the smallest part of a schema that is wrong in the same way: ` at #/properties/age`, or nothing."""
        definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        pointer, part, n_tried = "#", schema, 0
        give_up_s = time.thread_time() + MAX_COMPILE_S
        found = True
        while found:
            found = False
            for step, child in _subschemas(part):
                n_tried += 1
                if n_tried > MAX_BLAMED or time.thread_time() > give_up_s:
                    return f" near {pointer}"
                if self._build("json_schema", json.dumps({**definitions, **child}))[1] == error:
                    pointer, part, found = pointer + step, child, True
                    break
        return f" at {pointer}" if pointer != "#" else ""


_KINDS: Final = {
    "json_schema": "JSON schema",
    "regex": "regular expression",
    "lark": "tools' grammar",
}
_HINTS: Final = {
    "json_schema": "the embedded engine knows most of JSON Schema 2020-12, but not, for one, `not`, `if`, `contains` and "
    "`uniqueItems`, nor a `oneOf` whose branches overlap (`anyOf` will do)",
    "regex": "the syntax is that of Rust's regex crate; there is no look-around",
}


def _limits() -> LLParserLimits:
    """Limits lowered: by llguidance's defaults a step may take a second and a lexer half a gigabyte."""
    return LLParserLimits(
        initial_lexer_fuel=300_000,
        step_lexer_fuel=50_000,
        step_max_items=20_000,
        max_lexer_states=16_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )


def _trouble_of(matcher: LLMatcher) -> str:
    """What is wrong with the next mask, if it is not only that nothing may come. Cost: that of a mask."""
    matcher.compute_bitmask()
    error = matcher.get_error() if matcher.is_error() else ""
    return "" if "NoExtension" in error else error


def _key(constraint: Constraint | Lark) -> tuple[str, str]:
    """Kind and text. The order of a schema's properties is kept: it is the order in which they are written."""
    if isinstance(constraint, JsonSchema):
        key = ("json_schema", schema_text(constraint.schema))
    elif isinstance(constraint, Regex):
        key = ("regex", constraint.pattern)
    else:
        key = ("lark", constraint.text)
    n_bytes = len(key[1].encode("utf-8", "surrogatepass"))
    if n_bytes > MAX_GRAMMAR_BYTES:
        raise TooLarge(
            f"the {_KINDS[key[0]]} has {n_bytes} bytes; the limit is {MAX_GRAMMAR_BYTES}"
        )
    return key


def schema_text(schema: JsonObject) -> str:
    """A schema as JSON.

    Raises:
        InvalidCall: It is no JSON, or nested too deep.
    """
    try:
        text = json.dumps(schema, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCall(f"the JSON schema is no JSON: {_brief(str(error))}") from error
    if _is_deeper_than(schema, MAX_SCHEMA_DEPTH):
        raise InvalidCall(f"the JSON schema is nested more than {MAX_SCHEMA_DEPTH} deep")
    return text


def with_layout(schema: JsonObject) -> JsonObject:
    """The schema with our layout of JSON, whatever layout it asks for itself."""
    return {**schema, "x-guidance": JSON_LAYOUT}


def _is_deeper_than(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


_SCHEMA_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMA_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMA_ONES: Final = ("items", "additionalProperties", "not", "contains", "if", "then", "else")


def _subschemas(schema: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """The schemas directly inside a schema, each with the step of the JSON pointer that leads to it."""
    for keyword in (*_SCHEMA_MAPS, *_SCHEMA_LISTS, *_SCHEMA_ONES):
        inner = schema.get(keyword)
        steps: Iterator[tuple[str, object]]
        if keyword in _SCHEMA_MAPS and isinstance(inner, dict):
            steps = ((f"/{keyword}/{_escape(name)}", child) for name, child in inner.items())
        elif keyword in _SCHEMA_LISTS and isinstance(inner, list):
            steps = ((f"/{keyword}/{i}", child) for i, child in enumerate(inner))
        else:
            steps = iter([(f"/{keyword}", inner)])
        for step, child in steps:
            if isinstance(child, dict):
                yield step, cast("JsonObject", child)


def _escape(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def _brief(message: str) -> str:
    """An error of llguidance on one line, without the places in grammars and the dumps that only it knows."""
    line = " ".join(message.replace("<non-verbose/>", "").split())
    line = line.rpartition("(in regex): ")[2].partition(" 1 | start: ")[0]
    return line if len(line) <= 300 else line[:300] + "..."
