"""The verb `chat`: one question, or a conversation."""

import os
import select
import stat
import sys
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from aios.abi.calls import ChatAnswer
from aios.abi.gate import Result
from aios.abi.types import Finish, JsonObject
from aios.cli.conversation import Conversation
from aios.cli.ending import ending_in_order
from aios.cli.exits import ExitCode, report
from aios.cli.options import examples, json_option
from aios.cli.output import counted, printable, short_seconds, write_json
from aios.cli.speaker import Interrupted, Speaker
from aios.configload import load
from aios.errors import AiosError, ContextWindowExceeded, InvalidCall
from aios.sdk.requests import ChatOptions

DEFAULT_MAX_TOKENS = 1024
MAX_SCHEMA_BYTES = 1 << 20
MAX_PIPED_CHARS = 32 << 20
SAY_AFTER_S = 2.0
WORTH_TELLING_S = 0.5
PROMPT = "> "
LEAVE = ("/exit", "/quit")
HELP = (
    "/reset forgets the conversation   /system TEXT sets the system prompt   /exit or Ctrl-D leaves"
)


@click.command(
    epilog=examples(
        "aios chat",
        'aios chat "Name three seas." --temperature 0',
        "aios chat 'Summarise this:' < notes.txt",
        "aios chat 'What kind of text is this?' --schema kind.json --json < notes.txt",
    )
)
@click.argument("message", required=False)
@click.option("--model", default="", help="A model that the kernel serves; default: its first.")
@click.option("--system", default="", metavar="TEXT", help="The system prompt.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_TOKENS,
    show_default=True,
    help="Longest answer.",
)
@click.option("--temperature", type=float, help="0 always takes the likeliest token.")
@click.option("--seed", type=int, help="Repeat an answer.")
@click.option(
    "--schema",
    "schema_file",
    type=click.Path(path_type=Path),
    help="A JSON Schema that answers must match.",
)
@json_option
def chat(
    *,
    message: str | None,
    model: str,
    system: str,
    max_tokens: int,
    temperature: float | None,
    seed: int | None,
    schema_file: Path | None,
    as_json: bool,
) -> int:
    """Talk with a model: one answer to MESSAGE and what comes through a pipe, else a conversation.

    Ctrl-C breaks an answer off, not the conversation. The chat shows in `aios ps` as a guest. When no kernel runs, this
    command is the kernel meanwhile.
    """
    options = ChatOptions(model=model, max_tokens=max_tokens, seed=seed)
    if temperature is not None:
        options["temperature"] = temperature
    schema = _read_schema(schema_file) if schema_file is not None else None
    conversation = Conversation(options, schema, system)
    text = _whole_message(message)
    if text is None and as_json:
        raise InvalidCall("--json needs a MESSAGE or a pipe", hint='aios chat "..." --json')
    with ending_in_order(), Speaker(load(), _tell, may_ask=not as_json) as speaker:
        if text is not None:
            return _answer_once(speaker, conversation, text, as_json=as_json)
        _converse(speaker, conversation)
    return ExitCode.OK


def _whole_message(message: str | None) -> str | None:
    """The message and what comes through a pipe or from a file; None when there is neither."""
    piped = _read_piped() if message is None or _is_redirected() else ""
    parts = [part for part in (message, piped) if part]
    if not parts and not sys.stdin.isatty():
        raise InvalidCall("there is no MESSAGE and nothing on stdin", hint='aios chat "..."')
    return "\n\n".join(parts) if parts else None


def _is_redirected() -> bool:
    """Whether stdin is a pipe or a file; other things, such as a socket that nobody closes, might never end."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_piped() -> str:
    """All of stdin, unless it is the keyboard. Who waits here for long is told for what."""
    if sys.stdin.isatty():
        return ""
    if not select.select([sys.stdin], [], [], SAY_AFTER_S)[0]:
        _tell("reading stdin to its end (`< /dev/null` for none)")
    return sys.stdin.read(MAX_PIPED_CHARS).strip()


def _read_schema(file: Path) -> JsonObject:
    try:
        if file.stat().st_size > MAX_SCHEMA_BYTES:
            raise InvalidCall(
                f"{file} is over {MAX_SCHEMA_BYTES} bytes", hint="no schema is so long"
            )
        return msgspec.json.decode(file.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidCall(
            f"{file} holds no JSON Schema: {error}", hint="it is a JSON object"
        ) from error


def _answer_once(speaker: Speaker, conversation: Conversation, text: str, *, as_json: bool) -> int:
    written: list[str] = []

    def write(piece: str) -> None:
        written.append(piece)
        _write(piece)

    try:
        result = speaker.ask(conversation.ask(text), _drop if as_json else write)
    except Interrupted:
        return ExitCode.INTERRUPTED
    except AiosError:
        if written:
            click.echo()  # the error is told on a line of its own
        raise
    if as_json:
        write_json(_as_json(result))
    else:
        click.echo()
        _tell_cut(result.value)
    return ExitCode.OK


def _converse(speaker: Speaker, conversation: Conversation) -> None:
    """Read and answer until the end of the input."""
    with suppress(ImportError):  # some Pythons lack it; then there are no arrow keys
        import readline  # noqa: F401, PLC0415 - its import alone makes `input` edit lines

    _tell(HELP)
    with suppress(EOFError):
        while True:
            try:
                line = input(PROMPT).strip()
            except KeyboardInterrupt:
                _tell("\n/exit or Ctrl-D leaves")
                continue
            if line in LEAVE:
                return
            if line.startswith("/"):
                _obey(conversation, line)
            elif line:
                _answer(speaker, conversation, line)
    click.echo()


def _obey(conversation: Conversation, line: str) -> None:
    """Carry out a line that begins with a slash."""
    command, _, rest = line.partition(" ")
    match command:
        case "/reset":
            conversation.reset()
            _tell("the conversation begins anew")
        case "/system":
            conversation.system = rest.strip()
            _tell(f"the system prompt is {conversation.system!r}")
        case _:
            _tell(HELP)


def _answer(speaker: Speaker, conversation: Conversation, question: str) -> None:
    """Answer one question; what goes wrong ends the answer and not the conversation."""
    try:
        result = speaker.ask(conversation.ask(question), _write)
    except Interrupted as broken_off:
        click.echo()
        if broken_off.text:
            conversation.keep(question, broken_off.text)
        _tell("broken off")
    except AiosError as error:
        click.echo()
        report(error, as_json=False)
        if isinstance(error, ContextWindowExceeded) and conversation.n_answers:
            _tell("the conversation is too long for the model: /reset begins anew")
    else:
        click.echo()
        conversation.keep(question, result.value.message.text())
        _tell_cut(result.value)
        _tell_speed(result)


def _write(text: str) -> None:
    click.echo(printable(text), nl=False)


def _drop(_: str) -> None:
    return


def _tell(text: str) -> None:
    click.secho(text, dim=True, err=True)


def _tell_cut(answer: ChatAnswer) -> None:
    if answer.finish is Finish.LENGTH:
        _tell(
            f"[cut at {counted(answer.usage.completion_tokens, 'token')}; --max-tokens allows more]"
        )


def _tell_speed(result: Result[ChatAnswer]) -> None:
    usage = result.value.usage
    waited = (
        f", waited {short_seconds(result.waited_s)}" if result.waited_s >= WORTH_TELLING_S else ""
    )
    _tell(
        f"[{counted(usage.prompt_tokens, 'token')} in, {usage.cached_tokens} cached, {usage.completion_tokens} out, "
        f"{short_seconds(result.ran_s)}{waited}]"
    )


def _as_json(result: Result[ChatAnswer]) -> dict[str, object]:
    answer = result.value
    return {
        "text": answer.message.text(),
        "finish": answer.finish,
        "usage": answer.usage,
        "model": answer.model,
        "waited_s": result.waited_s,
        "ran_s": result.ran_s,
    }
