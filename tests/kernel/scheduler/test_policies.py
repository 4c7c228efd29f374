"""Every policy can be named, in the configuration and in calls."""

from typing import get_args

import pytest

from aios.abi.sched import PolicyName
from aios.config import SchedulerConfig
from aios.configload import load
from aios.kernel.scheduler.policies import POLICIES, make_policy


@pytest.mark.parametrize("name", POLICIES)
def test_the_configuration_names_the_policy(name: str) -> None:
    config = load(env={"AIOS_SCHEDULER_POLICY": name}).config.scheduler
    assert make_policy(config).name == name


def test_a_call_can_name_each_of_them() -> None:
    assert get_args(PolicyName) == tuple(POLICIES)


def test_the_default_is_one_of_them() -> None:
    assert SchedulerConfig().policy in POLICIES
