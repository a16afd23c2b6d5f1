"""What the model is told about a candidate that was rejected."""

from harness.candidate import Status
from harness.ledger import Row
from harness.propose.claude.reading import Reading, Unreadable, cut, line

# What a model can repair. Not IMPOSSIBLE and DISHONEST: nobody is helped to cheat better.
REPAIRABLE = (Status.FAILED_BUILD, Status.WRONG, Status.UNSAFE, Status.CRASHED, Status.TIMEOUT)


def outcome(row: Row, reading: Reading, left: int) -> str:
    """A rejected candidate's row, what was found, and how often it may still be repaired after this."""
    found = _found(row, reading)
    again = (
        "Repair it, or propose something else." if left else "Repair it now or propose something else: the last try."
    )
    return "\n".join(filter(None, [line(row), cut(found), again]))


def _found(row: Row, reading: Reading) -> str:
    try:
        return reading.build_log(row.id) if row.status is Status.FAILED_BUILD else reading.check(row.id)
    except Unreadable:  # its row says all there is
        return ""
