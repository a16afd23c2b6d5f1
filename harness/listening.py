"""The child's side of a conversation: does what the parent says, command by command.

Commands are lines of JSON on standard input, the answers lines on what was standard output; whatever else the process
prints goes to its log. An answer repeats the number that came with its command.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any


def channel() -> IO[str]:
    """Where answers go: what was standard output, which from here on is the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def listen(answers: IO[str], actor: Any, timeout_s: float) -> dict[str, Any]:
    """Says that it is ready, then calls a method of `actor` for each command, until there are no more."""
    _say(answers, {"number": 0})
    for line in sys.stdin:
        command = json.loads(line)
        signal.alarm(int(timeout_s) + 5)  # anew: it ends a process whose parent is gone
        _say(answers, {"number": command["number"], **getattr(actor, command["do"])(**command["with"])})
    return {}


def _say(answers: IO[str], answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer, allow_nan=False) + "\n")
    answers.flush()
