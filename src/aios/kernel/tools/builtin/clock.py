"""`clock`: what time it is."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aios.abi.tools import Traits
from aios.errors import InvalidCall
from aios.kernel.clock import Clock
from aios.kernel.tools.builtin.making import as_json, make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool


def clock_tool(clock: Clock) -> Tool:
    """The tool; it reads the kernel's calendar, which tests move by hand."""

    async def run(job: Job) -> Outcome:
        return as_json(told(clock.unix_s(), job.text("zone", "UTC")))

    return make(
        "clock",
        "Tell the date, the time and the weekday.",
        run,
        parameters={
            "zone": string("an IANA time zone such as Europe/Rome; UTC if left out", max_length=64)
        },
        traits=Traits(effect="pure", timeout_s=5.0),
    )


def told(unix_s: float, zone: str) -> dict[str, object]:
    """A moment in a zone.

    Raises:
        InvalidCall: There is no such zone.
    """
    try:
        where = UTC if zone == "UTC" else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidCall(
            f"there is no time zone {zone!r}", hint="use a name such as Europe/Rome, or UTC"
        ) from error
    moment = datetime.fromtimestamp(unix_s, where)
    return {
        "time": moment.isoformat(timespec="seconds"),
        "weekday": moment.strftime("%A"),
        "zone": zone,
        "unix_s": round(unix_s),
    }
