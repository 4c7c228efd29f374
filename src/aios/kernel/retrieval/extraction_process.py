"""The kernel's side of the process that reads files for the index: it begins with the first file and ends when it is idle or harmful."""

import os
import subprocess
import sys
from contextlib import suppress

import anyio
import msgspec

from aios.errors import ResourceExhausted
from aios.kernel.retrieval.extractor import LENGTH, Extracted, Job
from aios.kernel.retrieval.formats import Form
from aios.kernel.sandbox.places import interpreter
from aios.kernel.sandbox.spawning import ChildProcess, start_program
from aios.readers import from_msgpack

MAX_REPLY_BYTES = 256 << 20


class ExtractionProcess:
    """Text out of files, in a process that can be ended. One file at a time; one task uses it.

    Args:
        timeout_s: After so long with one file it is ended; that file has no text then.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process: ChildProcess | None = None
        self.n_started = 0

    async def extract(self, form: Form, data: bytes) -> Extracted:
        """The passages of a file, or why there are none; never fails because of the file.

        Raises:
            ResourceExhausted: No process can be started.
        """
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._ask(Job(form, data))
        except TimeoutError:
            await self.aclose()
            return Extracted(problem=f"takes over {self._timeout_s:g} s to read")
        except (
            anyio.EndOfStream,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            msgspec.DecodeError,
        ):
            await self.aclose()
            return Extracted(problem="reading it ended the process that reads")
        except BaseException:
            # The reply of what was cut short would be taken for that of the next file.
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the process, if there is one; the next file starts another."""
        process, self._process = self._process, None
        if process is not None:
            with anyio.CancelScope(shield=True):
                with suppress(ProcessLookupError):
                    process.kill()
                await process.aclose()

    async def _ask(self, job: Job) -> Extracted:
        process = self._process or self._start()
        request = msgspec.msgpack.encode(job)
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(LENGTH.pack(len(request)) + request)
        received = bytearray()
        n_wanted = LENGTH.size
        while len(received) < n_wanted:
            received += await process.stdout.receive(1 << 20)
            if n_wanted == LENGTH.size and len(received) >= n_wanted:
                n_wanted += LENGTH.unpack_from(received)[0]
                if n_wanted > MAX_REPLY_BYTES:
                    raise anyio.BrokenResourceError
        return from_msgpack(memoryview(received)[LENGTH.size :], Extracted)

    def _start(self) -> ChildProcess:
        self.n_started += 1
        try:
            self._process = start_program(
                [interpreter(), "-m", "aios.kernel.retrieval.extractor"],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        except OSError as error:
            raise ResourceExhausted(
                f"no process can be started to read files: {error}",
                hint="end other programs",
                retry_after_s=60,
            ) from error
        return self._process
