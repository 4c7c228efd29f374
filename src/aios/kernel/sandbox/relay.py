"""The way out of a sandbox: carries connections from the sandbox's own loopback to the Unix socket of the kernel's egress proxy.

Runs inside, with nothing of AIOS imported, and has no rights that the program has not:

    python -I -S relay.py SOCKET PORT COMMAND...

A child of a child listens, so the program that this process becomes never sees a child that it did not start; the first process of the
namespace reaps it. The program may end it: then it has no network.
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress

PIECE_BYTES = 64 << 10
BACKLOG = 64
PAUSE_S = 0.1


def carry(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way until there are no more."""
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def attend(inner: socket.socket, path: str) -> None:
    """Carry one connection both ways."""
    with inner, socket.socket(socket.AF_UNIX) as outer:
        try:
            outer.connect(path)
        except OSError:
            return
        back = threading.Thread(target=carry, args=(outer, inner), daemon=True)  # noqa: TID251 - a script of its own
        try:
            back.start()
        except RuntimeError:  # no thread is left
            return
        carry(inner, outer)
        back.join()


def serve(listener: socket.socket, path: str) -> None:
    """Attend to connections, each in a thread. What the program's limits leave no room for is closed, and the next one looked at."""
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:  # no descriptor is left
            time.sleep(PAUSE_S)  # noqa: TID251 - a script of its own
            continue
        try:
            threading.Thread(target=attend, args=(inner, path), daemon=True).start()  # noqa: TID251 - a script of its own
        except RuntimeError:  # no thread is left
            inner.close()


def main() -> None:
    """Listen in the background, and become the program."""
    path, port, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - pathlib is slow to import
                for stream in (0, 1, 2):  # else its pipes stay open when the program has ended
                    os.dup2(nothing.fileno(), stream)
            serve(listener, path)
        os._exit(0)
    os.waitpid(middle, 0)
    listener.close()
    os.execv(command[0], command)  # noqa: S606 - to become a program is its purpose


if __name__ == "__main__":
    main()
