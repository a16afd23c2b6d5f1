"""`nightforge verify`: a winner built, judged and timed again from its record, on this machine."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baseline.errors import CheckError, UsageError
from baseline.manifest import load_manifest
from harness import isolation, targets
from harness.built_with import built_with, differences
from harness.candidate import Speedup
from harness.confirm import Confirmed, confirm, headline
from harness.judge import Judge
from harness.progress import Observer
from harness.seal import digests
from harness.settings import SearchSettings
from harness.winner import Winner

DECODE = "decode, whole engine"
SHRUNK = 0.8  # of a recorded gain's lower bound: what a shared machine takes from a gain between two hours


@dataclass(frozen=True)
class Rerun:
    """What came of it. `recorded` and `again` are speed-ups over the seed, by op and of DECODE in the whole engine.

    reproduced: every gain of the record was shown again, the answers were golden again. reason: '' when it was.
    notes: what it was built with and ran on that is another here, a line each.
    """

    reproduced: bool
    reason: str
    speedup: float | None
    speedup_low: float | None
    recorded: Mapping[str, Speedup]
    again: Mapping[str, Speedup]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)


def rerun(winner: Winner, settings: SearchSettings, observer: Observer) -> Rerun:
    """Judges a winner again. `settings` says where the model, the golden record and the build cache are here.

    UsageError where the winner was never confirmed, this machine cannot time its target, or lacks a layer of a required
    sandbox; CheckError where the model,
    the golden record or a contract is not the recorded one, or a source is not what its id says. Another compiler,
    library or CPU is a note.
    """
    return dataclasses.replace(_rerun(winner, settings, observer), notes=notes(winner))


def notes(winner: Winner) -> tuple[str, ...]:
    """What the search of a winner was built with and ran on that is another here."""
    return differences(winner.asked.built_with, built_with())


def _rerun(winner: Winner, settings: SearchSettings, observer: Observer) -> Rerun:
    if winner.confirmed is None:
        raise UsageError(f"{winner.run}: its champion was never confirmed; go on with: {_resume(winner)}")
    isolation.require(settings.sandbox)
    target = targets.here(winner.target)
    if not target.measures:
        raise UsageError(f"a winner on {target.name} can only be timed on {target.elsewhere}")
    with tempfile.TemporaryDirectory(prefix="nightforge-verify-") as scratch:
        kernels = Path(scratch, "kernels")
        variants = winner.write_kernels(kernels)
        asked = winner.asked
        settings = dataclasses.replace(settings, kernels=kernels, run=Path(scratch), target=winner.target)
        settings = dataclasses.replace(settings, min_gain=asked.min_gain, state=asked.state, judge=asked.judge)
        _same_contents(winner, settings)
        judge = Judge(settings, target, variants, observer, _folder(scratch, "shared"))
        try:
            judge.measure_seed(winner.seed, tuple(winner.changed))
            again = confirm(judge, winner.champion, winner.seed, _folder(scratch, "champion"))
        except CheckError as error:
            return Rerun(False, str(error), None, None, _speedups(winner.confirmed), {})
    return compared(winner, winner.confirmed, again, settings.min_gain)


def compared(winner: Winner, confirmed: Confirmed, again: Confirmed, min_gain: float) -> Rerun:
    """What a winner's record says, beside what came of it `again`.

    A gain that was shown, its lower bound above 1 + min_gain, must be shown again; on the same machine with the same
    tools it must be as large, but for SHRUNK. What is a loss by now reproduces nothing.
    """
    recorded, found = _speedups(confirmed), _speedups(again)
    if recorded.keys() != found.keys():
        raise CheckError(f"{winner.run}: it was confirmed with {', '.join(recorded)}, and changed {', '.join(found)}")
    same, reason = not notes(winner), ""
    for what, then in recorded.items():
        now = found[what]
        if now.high < 1 or now.low <= 1 + min_gain < then.low:
            reason = f"no gain shown this time: {what} is {now.text()}"
        elif same and now.high < SHRUNK * then.low:
            reason = f"{what} was {then.text()}, and is {now.text()}"
    gain = headline(again, winner.asked.ops)
    return Rerun(not reason, reason, gain.value, gain.low, recorded, found)


def _speedups(confirmed: Confirmed) -> dict[str, Speedup]:
    return {**confirmed.ops, DECODE: confirmed.engine}


def _same_contents(winner: Winner, settings: SearchSettings) -> None:
    model = load_manifest(settings.packed).source.fingerprint
    for name, found in {"model": model, **digests(settings)}.items():
        if found != (recorded := winner.asked.contents.get(name)):
            raise CheckError(f"{winner.run}: it was judged by {name} {recorded}, here is {found}")


def _folder(scratch: str, name: str) -> Path:
    folder = Path(scratch, name)
    folder.mkdir()
    return folder


def _resume(winner: Winner) -> str:
    return f"nightforge search --resume run={winner.run}"
