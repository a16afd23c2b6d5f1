"""What a run leaves on disk, beside the ledger: a folder for each candidate, the settings, the summary."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from baseline import nvidia
from baseline.durable import durable
from baseline.errors import CheckError, UsageError
from baseline.manifest import load_manifest
from baseline.variant import Variant
from harness import strict_json
from harness.built_with import built_with
from harness.calls import Calls, unaccounted
from harness.candidate import Candidate, load_record
from harness.credit import Credit, credited
from harness.events import Events
from harness.isolation import layers
from harness.judge import Verdict
from harness.ledger import Row, load_rows
from harness.load import watched
from harness.model_use import ModelUse, model_use
from harness.seal import Seal
from harness.settings import SearchSettings, writable

KERNELS = "kernels"  # the folder of a run that keeps the contracts, and the variants that were written in it
CONFIRMATION = "confirmation.json"  # the raw samples behind the figures of the summary (`harness.confirmation`)
FOLDERS = ("run", "packed", "kernels", "cache", "golden")  # of settings: where a machine keeps things
# What must not change between a search and its resumption: rows of two searches do not belong in one ledger.
FIXED = ("target", "io", "judge", "min_gain", "state", "variants")


def recorded_overrides(run: Path) -> list[str]:
    """What the search in a folder began with, as key=value: its resumption need not repeat it. [] where there is none.

    UsageError where the record cannot be read.
    """
    path = run / "settings.json"
    if not path.is_file():
        return []
    try:
        began = json.loads(path.read_text())
        groups = [f"{group}.{name}={value}" for group in ("io", "judge") for name, value in began[group].items()]
        return [
            f"target={began['target']}",
            *_of_proposer(began["proposer"]),
            f"op=[{','.join(began['ops'])}]",
            f"min_gain={began['min_gain']}",
            f"state={began['state']}",
            f"variants={began['variants']}",
            *groups,
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not the record of a search ({error!r})") from error


def _of_proposer(began: Mapping[str, Any]) -> list[str]:
    own = began["claude"] or {name: began[name] for name in ("folder", "patience_s", "record") if began[name]}
    return [f"proposer={began['name']}", *(f"proposer.{name}={_override(value)}" for name, value in own.items())]


def _override(value: Any) -> Any:
    """A value as it stands on the command line."""
    return "null" if value is None else f"[{','.join(value)}]" if isinstance(value, list) else value


def _same_search(path: Path, now: Mapping[str, Any]) -> None:
    """UsageError when a search is resumed with other settings than it began with."""
    if not path.exists():
        return
    began = json.loads(path.read_text())
    fixed = [(name, began[name], now[name]) for name in FIXED]
    fixed += [(name, began["contents"][name], found) for name, found in now["contents"].items()]
    for name, old, new in fixed:
        if old != new:
            raise UsageError(f"{path.parent}: this search began with {name} {old}, not {new}")


class RunFolder:
    """`ledger.tsv`, `events.jsonl`, `calls.jsonl`, `study.db`, `settings.json`, `summary.json`, `confirmation.json`,
    `candidates/<id>/`, `kernels/<op>/`, `scratch/`."""

    def __init__(self, settings: SearchSettings) -> None:
        """Makes the folder. UsageError when it cannot be written, or holds a search that is not to be resumed."""
        self.path = writable(settings.run)
        self.ledger = self.path / "ledger.tsv"
        self.study = self.path / "study.db"
        if load_rows(self.ledger) and not settings.resume:
            raise UsageError(f"{self.path} already holds a search: resume it, or choose another folder")
        if not self.ledger.exists() and settings.resume:
            raise UsageError(f"{self.path} holds no search to resume: there is no {self.ledger.name}")
        self.seal = Seal(settings)
        # These must not change either. The folders may, and are not recorded: a search can be resumed, and a winner
        # reproduced, on another machine.
        contents = {"model": load_manifest(settings.packed).source.fingerprint, **self.seal.digests}
        asked = {name: value for name, value in asdict(settings).items() if name not in FOLDERS}
        record = json.loads(strict_json.dumps(asked)) | {"contents": contents}
        record["confined_by"] = layers().in_force
        record["let_through"] = layers().on_cuda if nvidia.in_use() else ()
        record["built_with"] = built_with()
        record["watched"] = asdict(watched())
        _same_search(self.path / "settings.json", record)
        writable(settings.cache)
        self.scratch = writable(self.path / "scratch")
        self.kernels = self.path / KERNELS
        self.events = Events(self.path / "events.jsonl")
        self.calls = Calls(self.path / "calls.jsonl")
        self.write("settings.json", record)
        self._keep_contracts(settings)

    def _keep_contracts(self, settings: SearchSettings) -> None:
        """Beside the sources of the candidates, so that the record is whole without the folder of kernels."""
        for contract in settings.kernels.glob("*/contract.yaml"):
            shutil.copyfile(contract, writable(self.kernels / contract.parent.name) / contract.name)

    def write(self, name: str, record: Any) -> None:
        """Writes a JSON file, whole and on the disk, or not at all."""
        with durable(self.path / name) as partial:
            partial.write_text(strict_json.dumps(record))

    def candidate(self, identity: str) -> Path:
        """A candidate's folder, made if it is missing."""
        folder = candidate_folder(self.path, identity)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scratch_of(self, identity: str) -> Path:
        """The one folder that a candidate's processes may write to."""
        return writable(self.candidate(identity) / "scratch")

    def record(self, candidate: Candidate, variants: Mapping[str, Mapping[str, Variant]]) -> Path:
        """Writes who a candidate is, with the sources of its kernels, and returns its folder."""
        folder = self.candidate(candidate.id)
        (folder / "candidate.json").write_text(strict_json.dumps(candidate.to_json()))
        for op, spec in candidate.configuration.kernels.items():
            source = variants[op][spec.variant].path
            shutil.copyfile(source, folder / f"{op}{source.suffix}")
        return folder

    def record_verdict(self, candidate: Candidate, verdict: Verdict) -> None:
        """Writes the raw samples of all stages, and the compiler's output; drops the arrays that a check exchanged."""
        folder = self.candidate(candidate.id)
        (folder / "samples.json").write_text(strict_json.dumps(asdict(verdict)))
        if verdict.built is not None:
            (folder / "build.log").write_text(verdict.built.log)
        for exchanged in (*folder.glob("scratch/*.npz"), *folder.glob("scratch/*.safetensors")):
            exchanged.unlink()

    def model_use(self, rows: Sequence[Row]) -> ModelUse:
        """What this search took of a language model: its candidates (`rows`), and its events."""
        return replace(model_use(rows, self.events.read()), calls=len(self.calls.read()))

    def credited(self, rows: Sequence[Row], confirmed: Mapping[str, float]) -> list[Credit]:
        """What each model has earned: see `harness.credit`."""
        return credited(rows, [*self.events.read()], self.calls.read(), confirmed)

    def account(self, rows: Sequence[Row]) -> None:
        """Records as events what calls of a model took that neither a candidate (`rows`) nor an event tells of."""
        for event in unaccounted(self.calls.read(), rows, [*self.events.read()]):
            self.events.record(event)

    def load(self, identity: str) -> Candidate:
        """A recorded candidate. CheckError when its record is missing or damaged."""
        return load_candidate(self.path, identity)


def candidate_folder(run: Path, identity: str) -> Path:
    """Where a run keeps a candidate."""
    return run / "candidates" / identity


def load_candidate(run: Path, identity: str) -> Candidate:
    """A candidate of a run. CheckError when its record is missing or damaged."""
    path = candidate_folder(run, identity) / "candidate.json"
    candidate = load_record(path)
    if candidate.id != identity:
        raise CheckError(f"{path}: the record of another candidate, {candidate.id}")
    return candidate
