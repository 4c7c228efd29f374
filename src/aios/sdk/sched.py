"""Scheduling for agents and their owner: `await client.sched.show()`, and the same for plain code."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from aios.abi.sched import PolicyName, Sched, SchedInfo, SetSched
from aios.abi.trace import SchedTrace, SchedTraced
from aios.sdk.requests import build

if TYPE_CHECKING:
    from aios.abi.gate import Gate
    from aios.sdk.blocking import BlockingGate

NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


class Scheduling:
    """How turns at engines are given."""

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    async def show(self) -> SchedInfo:
        """The policy in force, its parameters, and how busy each engine is."""
        return (await self._gate.call(Sched())).value

    async def set(
        self,
        policy: PolicyName | None = None,
        *,
        quantum_tokens: int | None = None,
        weights: Mapping[str, float] = NO_WEIGHTS,
    ) -> SchedInfo:
        """Change how turns are given from now on; what is None stays.

        Args:
            policy: `fifo`, `rr`, `priority`, `mlfq`, `fair`, `bvt` or `edf`.
            quantum_tokens: Tokens after which a turn ends if somebody better waits.
            weights: Shares of owners under `fair` and `bvt`, added to those there are; 1 is that of everybody.

        Raises:
            AccessDenied: Only the owner may.
        """
        return (await self._gate.call(_set_call(policy, quantum_tokens, weights))).value

    async def trace(self) -> SchedTraced:
        """Which agent was served how many tokens when, of the last calls; nothing of what was said.

        Raises:
            AccessDenied: Only the owner may ask.
        """
        return (await self._gate.call(SchedTrace())).value


class BlockingScheduling:
    """How turns at engines are given, for code that waits; see `Scheduling`."""

    def __init__(self, gate: "BlockingGate") -> None:
        self._gate = gate

    def show(self) -> SchedInfo:
        """The policy in force, its parameters, and how busy each engine is."""
        return self._gate.call(Sched()).value

    def set(
        self,
        policy: PolicyName | None = None,
        *,
        quantum_tokens: int | None = None,
        weights: Mapping[str, float] = NO_WEIGHTS,
    ) -> SchedInfo:
        """Change how turns are given from now on; what is None stays."""
        return self._gate.call(_set_call(policy, quantum_tokens, weights)).value

    def trace(self) -> SchedTraced:
        """Which agent was served how many tokens when, of the last calls; nothing of what was said."""
        return self._gate.call(SchedTrace()).value


def _set_call(
    policy: PolicyName | None, quantum_tokens: int | None, weights: Mapping[str, float]
) -> SetSched:
    return build(SetSched, policy=policy, quantum_tokens=quantum_tokens, weights=dict(weights))
