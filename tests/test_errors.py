import pytest

from aios.errors import KernelBug, NotFound, edge


@pytest.mark.parametrize("error", [NotFound("it is gone"), OSError("it broke")])
def test_what_an_edge_knows_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, edge("a call", OSError):
        raise error
    assert caught.value is error


def test_a_bug_within_an_edge_is_told_as_one() -> None:
    said = "a call failed inside the kernel: ValueError: no"
    with pytest.raises(KernelBug, match=said) as caught, edge("a call"):
        raise ValueError("no")
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("end", [KeyboardInterrupt, GeneratorExit])
def test_who_ends_the_work_is_not_held_up(end: type[BaseException]) -> None:
    with pytest.raises(end), edge("a call"):
        raise end
