"""A search's winner, read back from its record alone: sources, configuration, hashes and figures."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseline.errors import CheckError, UsageError
from baseline.variant import SUFFIXES
from harness.candidate import Candidate, KernelSpec
from harness.confirm import Confirmed
from harness.ledger import load_rows
from harness.run_folder import KERNELS, candidate_folder, load_candidate


@dataclass(frozen=True)
class Winner:
    """The last champion of a run and the seed that it was confirmed against; None while it was not.

    settings: what the search was asked, with the hashes of what it was judged by.
    """

    run: Path
    champion: Candidate
    seed: Candidate
    settings: dict[str, Any]
    confirmed: Confirmed | None

    @property
    def target(self) -> str:
        """The target that it was measured on."""
        return str(self.settings["target"])

    @property
    def changed(self) -> dict[str, KernelSpec]:
        """The kernels that are not the seed's, by op."""
        kept = self.seed.configuration.kernels
        return {op: spec for op, spec in self.champion.configuration.kernels.items() if spec != kept[op]}

    def write_kernels(self, folder: Path) -> None:
        """The contracts and sources of both as a folder of kernels. CheckError where one is missing."""
        try:
            for op in self.champion.configuration.kernels:
                (folder / op / self.target).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.run / KERNELS / op / "contract.yaml", folder / op / "contract.yaml")
                for candidate in (self.seed, self.champion):
                    self._copy_source(candidate, op, folder)
        except OSError as error:
            raise CheckError(f"{self.run}: its record is not whole: {error.filename}: {error.strerror}") from None

    def _copy_source(self, candidate: Candidate, op: str, folder: Path) -> None:
        suffix = SUFFIXES[self.target]
        source = candidate_folder(self.run, candidate.id) / f"{op}{suffix}"
        shutil.copyfile(source, folder / op / self.target / f"{candidate.configuration.kernels[op].variant}{suffix}")


def load_winner(run: Path) -> Winner:
    """The winner of the search in `run`. UsageError where there is none, CheckError where its record is damaged."""
    rows = load_rows(run / "ledger.tsv")
    if not rows:
        raise UsageError(f"{run} holds no search: it has no ledger.tsv with rows")
    kept = [row for row in rows if row.status == "kept"]
    champion, seed = (load_candidate(run, row.id) for row in (kept[-1], rows[0]))
    return Winner(run, champion, seed, _read(run / "settings.json"), _confirmed(run / "summary.json", champion))


def _confirmed(path: Path, champion: Candidate) -> Confirmed | None:
    """What confirmed this champion; None where the search ended before it, or another one was confirmed."""
    if not path.exists():
        return None
    summary = _read(path)
    if summary["confirmed"] is None or summary["champion"] != champion.id:
        return None
    try:
        return Confirmed.from_json(summary["confirmed"])
    except (KeyError, TypeError) as error:
        raise CheckError(f"{path}: not the summary of a search ({error!r})") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckError(f"{path} cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise CheckError(f"{path} is not the record of a search")
    return record
