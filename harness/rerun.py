"""`nightforge verify`: a winner built, judged and timed again from its record, on this machine."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baseline.errors import CheckError, UsageError
from baseline.manifest import load_manifest
from baseline.variant import Variant, list_variants
from harness import targets
from harness.built_with import built_with, differences
from harness.candidate import Speedup, identify
from harness.confirm import Confirmed, confirm, headline
from harness.judge import Judge
from harness.progress import Observer
from harness.seal import digests
from harness.settings import SearchSettings
from harness.winner import Winner


@dataclass(frozen=True)
class Rerun:
    """What came of it. `recorded` and `again` are speed-ups over the seed, by op, `engine` that of decode.

    reproduced: every gain of the record was shown again, the answers were golden again. reason: '' when it was.
    notes: what it was built with and ran on that is another here, a line each.
    """

    reproduced: bool
    reason: str
    speedup: float | None
    speedup_low: float | None
    recorded: Mapping[str, Speedup]
    again: Mapping[str, Speedup]
    engine: Speedup | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)


def rerun(winner: Winner, settings: SearchSettings, observer: Observer) -> Rerun:
    """Judges a winner again. `settings` says where the model, the golden record and the build cache are here.

    UsageError where the winner was never confirmed, or this machine cannot time its target; CheckError where the model,
    the golden record or a contract is not the recorded one, or a source is not what its id says. Another compiler,
    library or CPU is a note.
    """
    return dataclasses.replace(_rerun(winner, settings, observer), notes=notes(winner))


def notes(winner: Winner) -> tuple[str, ...]:
    """What the search of a winner was built with and ran on that is another here."""
    return differences(winner.settings.get("built_with", {}), built_with())


def _rerun(winner: Winner, settings: SearchSettings, observer: Observer) -> Rerun:
    if winner.confirmed is None:
        raise UsageError(f"{winner.run}: its champion was never confirmed; go on with: {_resume(winner)}")
    target = targets.here(winner.target)
    if not target.measures:
        raise UsageError(f"a winner on {target.name} can only be timed on {target.elsewhere}")
    with tempfile.TemporaryDirectory(prefix="nightforge-verify-") as scratch:
        kernels = Path(scratch, "kernels")
        winner.write_kernels(kernels)
        told = {"target": winner.target, "min_gain": winner.settings["min_gain"]}
        settings = dataclasses.replace(settings, kernels=kernels, run=Path(scratch), **told)
        _same_contents(winner, settings)
        variants = _variants(winner, kernels)
        judge = Judge(settings, target, variants, observer, _folder(scratch, "shared"))
        try:
            judge.measure_seed(winner.seed, tuple(winner.changed))
            again = confirm(judge, winner.champion, winner.seed, _folder(scratch, "champion"))
        except CheckError as error:
            return Rerun(False, str(error), None, None, winner.confirmed.ops, {}, None)
    return _compared(winner, winner.confirmed, again, settings.min_gain)


def _compared(winner: Winner, recorded: Confirmed, again: Confirmed, min_gain: float) -> Rerun:
    lost = [op for op in recorded.ops if again.ops[op].low <= 1 + min_gain < recorded.ops[op].low]
    gain = headline(again, tuple(winner.settings["ops"]))
    reason = f"no gain shown this time: {', '.join(lost)}" if lost else ""
    return Rerun(not lost, reason, gain.value, gain.low, recorded.ops, again.ops, again.engine)


def _same_contents(winner: Winner, settings: SearchSettings) -> None:
    model = load_manifest(settings.packed).source.fingerprint
    for name, found in {"model": model, **digests(settings)}.items():
        recorded = winner.settings["contents"].get(name)
        if found != recorded:
            raise CheckError(f"{winner.run}: it was judged by {name} {recorded}, here is {found}")


def _variants(winner: Winner, kernels: Path) -> dict[str, dict[str, Variant]]:
    """Those of the record, which must be what the ids were made of."""
    listed = {op: list_variants(kernels, op, winner.target) for op in winner.champion.configuration.kernels}
    variants = {op: {variant.name: variant for variant in of_op} for op, of_op in listed.items()}
    for candidate in (winner.seed, winner.champion):
        if identify(candidate.configuration, variants) != candidate.id:
            raise CheckError(f"{winner.run}: the recorded sources are not those of candidate {candidate.id}")
    return variants


def _folder(scratch: str, name: str) -> Path:
    folder = Path(scratch, name)
    folder.mkdir()
    return folder


def _resume(winner: Winner) -> str:
    return f"nightforge search --resume run={winner.run}"
