"""The handlers of the calls about scheduling: look at the scheduler and what it has served, and change its policy."""

from typing import cast

from msgspec.structs import replace

from aios.abi.sched import LaneInfo, PolicyName, Sched, SchedInfo, SetSched
from aios.abi.trace import SchedTrace, SchedTraced
from aios.kernel.process import Run
from aios.kernel.scheduler.policies import make_policy
from aios.kernel.scheduler.recorder import Recorder
from aios.kernel.scheduler.scheduler import Scheduler


class SchedulerControl:
    """Shows and changes how a scheduler gives turns, and what came of it."""

    def __init__(self, scheduler: Scheduler, recorder: Recorder) -> None:
        self._scheduler = scheduler
        self._recorder = recorder

    async def sched(self, _: Run, __: Sched) -> SchedInfo:
        """The policy in force and the state of each lane."""
        return self._info()

    async def set_sched(self, _: Run, call: SetSched) -> SchedInfo:
        """Change policy, quantum or weights; what is None stays."""
        config = self._scheduler.policy.config
        weights = {**config.weights, **call.weights}
        config = replace(
            config,
            policy=call.policy or config.policy,
            quantum_tokens=call.quantum_tokens or config.quantum_tokens,
            weights={owner: weight for owner, weight in weights.items() if weight != 1.0},
        )
        self._scheduler.set_policy(make_policy(config))
        return self._info()

    async def sched_trace(self, _: Run, __: SchedTrace) -> SchedTraced:
        """The calls that were served last."""
        return SchedTraced(self._recorder.trace(), self._recorder.n_dropped)

    def _info(self) -> SchedInfo:
        config = self._scheduler.policy.config
        lanes = tuple(
            LaneInfo(
                name,
                lane.capacity,
                lane.n_granted,
                lane.n_queued,
                longest_wait_s=self._scheduler.longest_wait_s(name),
                is_preemptible=lane.is_preemptible,
                working_set_tokens=lane.working_set_tokens,
                budget_tokens=lane.budget_tokens,
            )
            for name, lane in sorted(self._scheduler.statistics().items())
        )
        policy = cast("PolicyName", config.policy)  # the configuration checks it
        return SchedInfo(policy, config.quantum_tokens, config.weights, lanes)
