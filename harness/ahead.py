"""The candidate after the one that is measured: proposed early, so that its kernels are built meanwhile."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from baseline.variant import Variant
from harness.candidate import ENGINE_PARTS, Candidate, identify
from harness.costs import Part, spent_on
from harness.judge import Judge
from harness.ledger import Row
from harness.propose.base import History, Proposer
from harness.propose.claude.event import Spent

Variants = Mapping[str, Mapping[str, Variant]]


class Queue:
    """What is judged next: first what waits to be timed, then what the proposer proposes. A context manager: what was
    proposed and is not taken is withdrawn at the end."""

    def __init__(self, proposer: Proposer, seed: Candidate, waiting: Sequence[Candidate]) -> None:
        self._proposer, self._seed, self._waiting = proposer, seed, list(waiting)
        self._next: Candidate | None = None
        self._taken: Candidate | None = None  # as it was proposed

    def observe(self, row: Row) -> None:
        """Tells the proposer what became of the candidate that was taken last."""
        if self._taken is not None:
            self._proposer.observe(self._taken, row)

    def spent(self) -> Spent | None:
        """What was spent on the candidate that was taken last."""
        return self._proposer.spent(self._taken) if self._taken is not None else None

    def peek(self, champion: Candidate, rows: Sequence[Row], current: Candidate) -> Candidate | None:
        """What will most likely come after `current`, which is not judged yet; None where that is not known at once.

        A model that is asked before `current` is measured holds the measurement up; one that answers meanwhile, on a
        thread, disturbs it, and knows an outcome less.
        """
        if self._waiting:
            return self._waiting[0]
        if not self._proposer.at_once:
            return None
        self._next = self._proposer.propose(History(self._seed, champion, rows, (current,)))
        return self._next

    def take(self, champion: Candidate, rows: Sequence[Row], variants: Variants) -> Candidate | None:
        """The next candidate, beside what the champion has by now; None when there is none."""
        self._taken = None
        if self._waiting:
            return beside(self._waiting.pop(0), champion, variants)
        self._taken, self._next = self._next, None
        if self._taken is not None:
            candidate = beside(self._taken, champion, variants)
            if candidate.id not in {champion.id, *(row.id for row in rows)}:
                return candidate
            self._proposer.withdraw(self._taken)  # beside the new champion it is not new
        self._taken = self._proposer.propose(History(self._seed, champion, rows))
        return self._taken

    def __enter__(self) -> "Queue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._proposer.withdraw(self._next)


def beside(candidate: Candidate, champion: Candidate, variants: Variants) -> Candidate:
    """What a candidate changed beside the champion's rest, which may have changed since: then it is another one."""
    configuration = champion.configuration.with_part(candidate.changed, candidate.configuration)
    identity = identify(configuration, variants)
    if identity == candidate.id:
        return candidate
    return replace(candidate, id=identity, parent=champion.id, configuration=configuration)


class Ahead:
    """Builds one candidate's kernel at a time in the background, into the cache in which the judge finds it."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._pool = ThreadPoolExecutor(1)
        self._build: Future[object] | None = None

    def start(self, candidate: Candidate | None) -> None:
        """Begins to build the kernel that a candidate changed; what comes of it is the judge's to say, when it asks.

        A model is not converted: what is measured may read from the same disk.
        """
        if candidate is not None and candidate.changed not in ENGINE_PARTS:
            spec = candidate.configuration.kernels[candidate.changed]
            self._build = self._pool.submit(self._judge.build, candidate.changed, spec)

    @spent_on(Part.BUILDS)
    def finish(self) -> None:
        """Waits for the build: it shall not disturb, nor be done twice."""
        if self._build is not None:
            self._build.exception()
            self._build = None

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
