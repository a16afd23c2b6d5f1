"""What else a machine does while something is measured: other programs, throttling, a slower clock.

It is asked of the machine's own counters, before and after, and never of a measured time: to leave out what came out
slow would flatter a candidate that is slow now and then.
"""

import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

import psutil

CORES = 0.25  # of one core: what other programs may use before what was measured beside them is called disturbed
# What they may use however short the time was: the machine counts in ticks of 1 to 10 ms, by what each finds running,
# and tells hundredths of a second.
LEAST_S = 0.05
SLOWER = 0.8  # of the fastest clock before: less is a machine that has slowed down
CPUS = Path("/sys/devices/system/cpu")


class Disturbance(StrEnum):
    """What made a machine another one."""

    THROTTLED = "thermal throttling"
    SLOWER = "lower clock"
    LOAD = "other load"


@dataclass(frozen=True)
class Counters:
    """What a machine had counted at a moment.

    seconds: the time. others_s: of CPU time that went to other programs, or to other machines of the same host.
    throttled: how often any core was. clock: of the fastest core, in kHz (macOS: in percent of what it can be). Both
    are 0 where they are not told.
    """

    seconds: float
    others_s: float
    throttled: int = 0
    clock: float = 0.0


def disturbance(before: Counters, after: Counters, fastest: float = 0.0) -> Disturbance | None:
    """What disturbed the time between two readings. `fastest`: the highest clock so far."""
    if after.throttled > before.throttled:
        return Disturbance.THROTTLED
    if after.clock < SLOWER * fastest:
        return Disturbance.SLOWER
    if after.others_s - before.others_s > max(LEAST_S, CORES * (after.seconds - before.seconds)):
        return Disturbance.LOAD
    return None


@dataclass
class Watch:
    """Watches a machine from one look to the next.

    Clocks are compared with the fastest of this watch: one that is slow from the first look to the last disturbs
    nothing.
    """

    read: Callable[[], Counters]
    _last: Counters = field(init=False)
    _fastest: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._last = self.read()

    def look(self) -> Disturbance | None:
        """What disturbed the time since the last look."""
        before, self._last = self._last, self.read()
        self._fastest = max(self._fastest, self._last.clock)
        return disturbance(before, self._last, self._fastest)


def counters() -> Counters:
    """What this machine says now. It takes some milliseconds."""
    sensors = Sensors.here()
    return Counters(time.perf_counter(), others_s(), sensors.throttled(), sensors.clock())


def others_s() -> float:
    """Seconds of CPU time since some moment in the past that were not ours: of other programs in user mode, and stolen.

    Ours is all that this process and those below it use, at any priority: candidates, and the compilers that build the
    next one meanwhile. A candidate can make no other: it cannot leave the processes below us, as it may start none
    and not change its group (`harness.isolation`). Time in the kernel is nobody's, because threads of its own work
    there for the reads and writes of all: a candidate could have them work for it. So a program that does nothing but
    system calls goes unseen.
    """
    machine = psutil.cpu_times()
    return float(machine.user + machine.nice + getattr(machine, "steal", 0.0)) - _own_s()


def _own_s() -> float:
    """Seconds in user mode of this process and of all below it, those that have ended included."""
    alive = sum(_user_s(process) for process in psutil.Process().children(recursive=True))
    return alive + sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _user_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # it has just ended, and counts among those that have
        return 0.0
    return float(times.user + times.children_user)


@dataclass(frozen=True)
class Sensors:
    """Where a machine tells of its heat and of its clock; '' or no files where it does not."""

    throttle_counts: tuple[Path, ...] = ()
    frequencies: tuple[Path, ...] = ()
    pmset: str = ""

    @classmethod
    @cache
    def here(cls) -> "Sensors":
        """This machine's. Those of macOS are untested."""
        if sys.platform == "darwin":
            return cls(pmset=shutil.which("pmset") or "")
        return cls.below(CPUS)

    @classmethod
    def below(cls, cpus: Path) -> "Sensors":
        """Linux tells of each core in a folder."""
        counts = cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
        return cls(tuple(counts), tuple(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")))

    def throttled(self) -> int:
        """How often any core was, since the machine was started."""
        return sum(map(_number, self.throttle_counts))

    def clock(self) -> float:
        """Of the fastest core: the others may sleep."""
        return speed_limit(self.pmset) if self.pmset else max(map(_number, self.frequencies), default=0)


def speed_limit(pmset: str) -> float:
    """Percent of its speed that macOS lets the CPU have; 0 where it does not tell."""
    told = subprocess.run([pmset, "-g", "therm"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", told)
    return float(found[1]) if found else 0.0


def _number(file: Path) -> int:
    """What a file of the kernel's says; 0 where it cannot be read: a core may be switched off."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


@dataclass(frozen=True)
class Watched:
    """`told`: what is watched on this machine while it measures; `missing`: what is not, each with its reason."""

    told: tuple[str, ...]
    missing: tuple[str, ...]


def watched() -> Watched:
    """What this machine tells."""
    now, sensors = psutil.cpu_times(), Sensors.here()
    found = {
        "other programs": "",
        "time stolen by the host": "" if hasattr(now, "steal") else "stolen time: this system counts none",
        Disturbance.THROTTLED: "" if sensors.throttle_counts else f"{Disturbance.THROTTLED}: this machine counts none",
        "clock": "" if sensors.clock() else "clock: this machine does not tell its frequency",
    }
    told = (name for name, reason in found.items() if not reason)
    return Watched(tuple(told), tuple(reason for reason in found.values() if reason))
