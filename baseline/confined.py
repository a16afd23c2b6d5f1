"""Starts a program confined: `python -m baseline.confined JOB COMMAND...` keeps what the job allows, and becomes it.

In a process of its own, because Python cannot give anything up safely between fork and exec while it has threads.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baseline import confinement, macos
from baseline.confinement import Access, Limits

UNCONFINED = 125  # the exit status when nothing was started, as that of nice and env


def command(given: Sequence[str], job: dict[str, Any], folder: Path) -> list[str]:
    """The command that runs `given` with what `job` keeps (`confinement.to_job`); `folder` is one that it may write.

    It takes `environment` beside the variables that `given` needs.
    """
    inner = macos.confined(given, Access.from_json(job["access"]), folder)
    # -S: the standard library is all that it imports, and it starts in two thirds of the time.
    return [sys.executable, "-P", "-S", "-m", "baseline.confined", json.dumps(job), *inner]


def environment() -> dict[str, str]:
    """What the command of `command` is found by."""
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}


def main() -> None:
    """Runs the command behind the job in the first argument."""
    job, *given = sys.argv[1:]
    try:
        restrict(json.loads(job))
        os.execvp(given[0], given)
    except OSError as error:
        print(f"{given[0]} cannot be started confined: {error}", file=sys.stderr)
        sys.exit(UNCONFINED)


def restrict(job: dict[str, Any]) -> None:
    """Gives up what a job of `confinement.to_job` does not keep. OSError where the kernel refuses."""
    confinement.restrict_files(Access.from_json(job["access"]))
    confinement.restrict_use(Limits.from_json(job["limits"]))
    confinement.restrict_calls(job["calls_program"])


if __name__ == "__main__":
    main()
