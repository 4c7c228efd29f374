import pytest
from tests.cli.conftest import Served

from aios.cli import patience
from aios.cli.patience import follow_patiently
from aios.errors import KernelUnreachable
from aios.sdk.blocking import Client


def test_who_follows_goes_on_when_the_kernel_is_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.01)
    n_tries = 0

    def follow(client: Client) -> None:
        nonlocal n_tries
        n_tries += 1
        assert client.getpid().pid == served.kernel.init.pid
        if n_tries < 3:
            raise KernelUnreachable("gone")

    follow_patiently(follow, is_patient=True)
    assert n_tries == 3
    n_tries = 0
    with pytest.raises(KernelUnreachable):
        follow_patiently(follow, is_patient=False)
    assert n_tries == 1


def test_who_is_patient_for_a_while_gives_up(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "RETRY_S", 0.01)

    def follow(client: Client) -> None:
        assert client.getpid().pid == served.kernel.init.pid
        monkeypatch.setenv("AIOS_URL", "unix:///nowhere/kernel.sock")
        raise KernelUnreachable("gone")

    with pytest.raises(KernelUnreachable, match="gone"):
        follow_patiently(follow, is_patient=True, longest_s=lambda: 0.1)
    assert "waiting until it is back, 0.1s at most" in capsys.readouterr().err
