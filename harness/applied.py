"""`nightforge apply`: a confirmed winner as the default configuration of its target and model on this machine."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from baseline.errors import UsageError
from baseline.variant import Choice, named_variant, variant_path
from harness import strict_json
from harness.candidate import Configuration, load_record
from harness.paths import cache_folder, data_folder
from harness.winner import Winner

RECORD = "candidate.json"


@dataclass(frozen=True)
class Applied:
    """The folder of an applied winner: `candidate.json`, and its contracts and sources in `kernels`."""

    folder: Path
    configuration: Configuration
    target: str

    @property
    def kernels(self) -> Path:
        """Contracts and sources."""
        return self.folder / "kernels"

    def choices(self) -> dict[str, Choice]:
        """The kernels of the configuration. UsageError where the shipped contract of an op is another one by now."""
        chosen = {}
        for op, spec in self.configuration.kernels.items():
            recorded, shipped = (root / op / "contract.yaml" for root in (self.kernels, data_folder("kernels")))
            if recorded.read_bytes() != shipped.read_bytes():
                raise UsageError(f"{self.folder}: of another contract of {op}; remove it, or apply a newer search")
            path = variant_path(self.kernels, op, self.target, spec.variant)
            chosen[op] = Choice(named_variant(path, spec.variant, self.target), spec.tunables)
        return chosen


def place(target: str, fingerprint: str) -> Path:
    """Where the winner of a target and of the model with this fingerprint is kept."""
    return cache_folder() / "applied" / f"{target}-{fingerprint}"


def apply(winner: Winner) -> Applied:
    """Makes a winner the default. UsageError where it was not confirmed, CheckError where its record is damaged."""
    if winner.confirmed is None:
        raise UsageError(f"{winner.run}: its champion was never confirmed, so it is not applied")
    if winner.confirmed.refuted:
        raise UsageError(f"{winner.run}: its champion was refuted, so it is not applied: {winner.confirmed.refuted}")
    folder = place(winner.target, winner.asked.contents["model"])
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    winner.write_kernels(partial / "kernels")
    (partial / RECORD).write_text(strict_json.dumps(winner.champion.to_json()))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return Applied(folder, winner.champion.configuration, winner.target)


def applied(target: str, fingerprint: str) -> Applied | None:
    """What was applied for a target and a model; None where nothing was. CheckError where its record is damaged."""
    folder = place(target, fingerprint)
    path = folder / RECORD
    if not path.exists():
        return None
    return Applied(folder, load_record(path).configuration, target)
