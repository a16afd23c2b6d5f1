"""The start of a child: `python -m harness.confined JOB.json` gives up what the job does not allow, then runs it.

Nothing is imported before that which starts a thread: Landlock binds the thread that calls it and its descendants.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from baseline import confinement, keeper

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Runs the job in the file that the first argument names."""
    job = json.loads(Path(sys.argv[1]).read_text())
    end_with(job["parent"])
    signal.alarm(int(job["timeout_s"]) + 5)  # the parent kills at the timeout
    confinement.restrict_files(confinement.Access.from_json(job["access"]))
    confinement.restrict_use(confinement.Limits.from_json(job["limits"]))
    run(job)


def end_with(parent: int) -> None:
    """Has this process die with its parent, at once on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        sys.exit(1)


def run(job: dict[str, Any]) -> None:
    """The job itself, with all that it imports."""
    if job["kind"] == "compile":  # before MLX is imported
        keeper.keep(Path(os.environ["TMPDIR"]))
    if "questions" not in job:  # whose answers are words
        import baseline.tokenless  # noqa: F401
    from harness import child

    child.main(job)


if __name__ == "__main__":
    main()
