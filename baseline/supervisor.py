"""Runs a program in a group that ends when whoever started it does: `python supervisor.py COMMAND...`.

Whoever is killed cannot end what it has started, so this process stays beside the program. Its standard input is a pipe
whose other end nobody else holds (`lifeline`): at its end it kills the group, itself too. Where there is no seccomp, a
program can leave the group. It imports nothing of ours: a child that has given up files may find no package any more.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

NOT_STARTED = 127  # the exit status when there is no such program, as that of nice and env
SIGNALLED = 128  # and the signal's number: the exit status of a program that one has ended, as that of a shell


def command(given: Sequence[str]) -> list[str]:
    """The command that supervises `given`, which gets no input. It takes a `lifeline` as standard input."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *given]


@contextmanager
def lifeline() -> Iterator[int]:
    """A descriptor that is at its end as soon as this process is gone, or the context is left."""
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "wb"):
        yield read


def main() -> None:
    """Runs the command in the arguments; ends as it does, with its exit status."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    program = os.fork()  # no thread is there yet
    if not program:
        become(sys.argv[1:])
    threading.Thread(target=end_with_parent, daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    sys.exit(status if status >= 0 else SIGNALLED - status)


def end_with_parent() -> None:
    """Kills the group at the end of the lifeline, on which nothing is ever sent."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def become(given: list[str]) -> None:
    """Becomes a program without input; ends with NOT_STARTED where it cannot."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(given[0], given)
    except OSError as error:
        print(f"{given[0]} cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
