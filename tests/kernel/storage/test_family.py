import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.conftest import OpenKernel

from aios.abi.calls import Kill, Wait
from aios.abi.types import Pid
from aios.config import KernelConfig
from aios.errors import AccessDenied, InvalidCall, NotFound
from aios.kernel.gate import LocalGate
from aios.kernel.kernel import Kernel
from aios.kernel.storage.family import family_of
from aios.sdk.files import Files


def test_a_later_process_of_the_same_name_has_its_own_children() -> None:
    homes = {
        1: "/",
        5: "/agents/ann",
        6: "/agents/ann/kid",
        8: "/agents/anna",
        9: "/agents/ann",
        11: "/agents/ann/kid-11",
        12: "/agents/ann/kid/toy",
    }
    assert family_of(5, homes) == {5, 6, 12}
    assert family_of(9, homes) == {9, 11}
    assert family_of(6, homes) == {6, 12}
    assert family_of(8, homes) == {8}


def test_children_of_one_that_is_forgotten_count_to_the_next_folder_up() -> None:
    assert family_of(5, {5: "/agents/ann", 7: "/agents/ann/kid/toy"}) == {5, 7}
    assert family_of(5, {7: "/agents/ann/toy"}) == {5}


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from("ab")), max_size=40)


@given(STEPS)
def test_the_family_is_what_the_parents_say(steps: list[tuple[bool, int, str]]) -> None:
    """Processes start under any that lives and end at any time; a name is taken by one that lives."""
    homes, parents, living = {1: "/"}, {1: 0}, [1]
    for is_start, which, name in steps:
        chosen = living[which % len(living)]
        if is_start:
            pid = len(homes) + 1
            above = homes[chosen] if chosen != 1 else "/agents"
            taken = {homes[each].rpartition("/")[2] for each in living}
            homes[pid] = f"{above}/{name if name not in taken else f'{name}-{pid}'}"
            parents[pid] = chosen
            living.append(pid)
        elif chosen != 1:
            living.remove(chosen)
    for pid in homes:
        if pid != 1:
            assert family_of(pid, homes) == {
                each for each in homes if _is_within(each, pid, parents)
            }


def _is_within(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid not in {0, ancestor}:
        pid = parents[pid]
    return pid == ancestor


async def idle(_: LocalGate) -> None:
    await anyio.sleep_forever()


def agent(kernel: Kernel, name: str, *, parent: Pid = Pid(1)) -> tuple[Pid, Files]:
    """A process, and its files."""
    pid = kernel.spawn_task(name, idle, ppid=parent)
    return pid, Files(kernel.gate(pid))


@pytest.mark.anyio
async def test_a_rollback_of_a_process_takes_its_children_along_if_asked(
    booted: OpenKernel,
) -> None:
    async with booted(limits=KernelConfig(max_exited=1)) as kernel:
        files = Files(kernel.init_gate())
        await files.write("/shared/a", "before")
        ann_pid, ann = agent(kernel, "ann")
        kid_pid, kid = agent(kernel, "kid", parent=ann_pid)
        _, toy = agent(kernel, "toy", parent=kid_pid)
        _, bob = agent(kernel, "bob")
        await ann.write("/shared/a", "ann's")
        await kid.append("/shared/a", " and kid's")
        await toy.append("/shared/a", " and toy's")
        await toy.write("/shared/b", "toy's")
        await kid.write("/shared/c", "kid's")
        await bob.write("/shared/c", "bob's")
        with pytest.raises(InvalidCall, match="goes with `pid`"):
            await files.rollback("/shared/a", version=1, with_children=True)
        with pytest.raises(InvalidCall, match="all processes descend from 1"):
            await files.rollback(pid=1, with_children=True)
        with pytest.raises(NotFound, match="no process 99"):
            await files.rollback(pid=99, with_children=True)
        with pytest.raises(NotFound, match="nothing to undo"):
            await files.rollback(pid=agent(kernel, "idler")[0], with_children=True)
        assert (await files.rollback(pid=ann_pid)).left == ("/shared/a",)
        with pytest.raises(AccessDenied):
            await bob.rollback(pid=ann_pid, with_children=True)
        for pid in (kid_pid, ann_pid):
            await kernel.init_gate().call(Kill(pid))
        await kernel.init_gate().call(Wait(ann_pid))
        assert kernel.table.find(kid_pid) is None, "it is forgotten, and known by its versions"
        edited = await files.rollback(pid=ann_pid, with_children=True)
        assert {each.path: each.size_bytes for each in edited.versions} == {
            "/shared/a": 6,
            "/shared/b": None,
        }
        assert edited.left == ("/shared/c",)
        assert await files.read_text("/shared/a") == "before"
        assert (await files.check()).faults == ()
