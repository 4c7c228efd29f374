import os
import subprocess
import sys

FORKING = """
import os, sys
from aios import blocking
from aios.errors import AiosError

with blocking.connect("http://127.0.0.1:1", "token") as client:
    child = os.fork()
    for call in (client.getpid, lambda: list(client.stream_chat("x").__enter__())):
        try:
            call()
        except AiosError as error:
            print(type(error).__name__, error.hint, flush=True)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 7)
"""


def test_a_client_over_http_says_in_a_forked_child_that_it_is_not_the_childs() -> None:
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "ignore", "-c", FORKING],
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
        env=os.environ,
    )
    assert ran.returncode == 7
    said = sorted(line.split(" ", 1)[0] for line in ran.stdout.splitlines())
    assert said == ["InvalidCall"] * 2 + ["KernelUnreachable"] * 2
    assert "connect again in the child" in ran.stdout
