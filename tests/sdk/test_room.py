"""Rooms of a client: made when they are first asked for, and one of each."""

import subprocess
import sys

from aios.sdk.room import Room


class Corner:
    """What a room holds."""

    def __init__(self, gate: object) -> None:
        self.gate = gate


class House:
    """What has rooms."""

    corner: Room[Corner] = Room(f"{__name__}:Corner")

    def __init__(self) -> None:
        self.gate = object()


def test_a_room_is_made_of_the_gate_and_kept() -> None:
    sys.modules.setdefault(__name__, sys.modules[Corner.__module__])
    house = House()
    corner = house.corner
    assert corner.gate is house.gate
    assert house.corner is corner
    assert House().corner is not corner


def test_a_small_program_imports_neither_rooms_nor_calls_that_it_does_not_make() -> None:
    code = (
        "import sys, aios.sdk.blocking;"
        "print(*sorted(m for m in sys.modules if m.startswith(('aios.abi', 'aios.sdk', 'anyio', 'asyncio', 'httpx'))))"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and a fixed line
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    rooms = ("every", "files", "storage", "contexts", "mail", "memory", "tools", "mcp", "anyio")
    imported = {module.rpartition(".")[2] for module in done.stdout.split()}
    assert "blocking" in imported
    assert not imported & {*rooms, "asyncio", "httpx"}
