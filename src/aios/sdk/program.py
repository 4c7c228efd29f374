"""The entry point of a program: connects to the kernel that started it, runs its `main`, hands its result back.

    import aios

    def main(client: aios.blocking.Client, *, task: str = "Greet the world.") -> str:
        return client.chat(task, max_tokens=40).text

    if __name__ == "__main__":
        aios.run(main)

A plain `main` gets a blocking client and never loads an event loop, which halves the time to its first call; an async
`main` gets an `aios.Client`.
"""

import inspect
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TextIO

import msgspec

from aios.errors import AiosError, InvalidCall
from aios.sdk import blocking
from aios.sdk.arguments import bind, usage
from aios.sdk.terminated import Terminated

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
MAX_RESULT_CHARS = 1 << 20

Main = Callable[..., object] | Callable[..., Awaitable[object]]


def run(main: Main, argv: Sequence[str] | None = None) -> NoReturn:
    """Run `main(client, ...)` as a process of the kernel, and end.

    The command line becomes its arguments as `arguments.py` says: keyword-only parameters are options. What `main`
    returns becomes the result of the process: a text as it is, None as an empty text, anything else as JSON. An exception
    is shown as a traceback and ends it with status 1; SIGTERM cancels `main` (its `finally` blocks run) and ends it with
    status 143.

    Args:
        main: A plain or async function.
        argv: The arguments; those of the command line when None.

    Raises:
        SystemExit: Always, with the exit status.
    """
    given = sys.argv[1:] if argv is None else argv
    _stream_lines(sys.stdout)
    if "--help" in given:
        sys.stdout.write(_help(main))
        sys.exit(0)
    try:
        args, kwargs = bind(main, given)
    except InvalidCall as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        sys.exit(EXIT_USAGE)
    try:
        sys.exit(_run(main, args, kwargs))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except AiosError as error:
        if error.hint:
            error.add_note(f"hint: {error.hint}")
        raise


def result_text(value: object) -> str:
    """What a `main` returned, as the result of its process.

    Raises:
        InvalidCall: It is over 1 MiB, or JSON cannot hold it.
    """
    if value is None:
        return ""
    try:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except TypeError as error:
        raise InvalidCall(
            f"main returned a value that JSON cannot hold: {error}",
            hint="return a text, a Struct, a dataclass, or None",
        ) from error
    if len(text) > MAX_RESULT_CHARS:
        raise InvalidCall(
            f"main returned {len(text)} characters; a result holds {MAX_RESULT_CHARS}",
            hint="write a file and return its path",
        )
    return text


def _run(main: Main, args: tuple[object, ...], kwargs: dict[str, object]) -> int:
    """Run it to its end; returns the exit status."""
    if inspect.iscoroutinefunction(main):
        from aios.sdk.program_async import run_async  # noqa: PLC0415 - a plain program must not pay for an event loop

        return run_async(main, args, kwargs)
    signal.signal(signal.SIGTERM, _terminated)
    with blocking.connect() as client:
        text = result_text(main(client, *args, **kwargs))
        flush()
        client.exit(0, text)
    return 0


def _terminated(_: int, __: object) -> NoReturn:
    """SIGTERM: unwind `main`; a second one must not cut its clean-up short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _stream_lines(stream: object) -> None:
    """Make output show in `aios logs -f` line by line."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def flush() -> None:
    """The kernel may end the process at once after its `exit` call."""
    stream: TextIO
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _help(main: Main) -> str:
    return f"{usage(main)}\n\n{inspect.getdoc(main) or ''}".rstrip() + "\n"
