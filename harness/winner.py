"""A search's winner, read back from its record alone: sources, configuration, hashes and figures."""

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from baseline.errors import CheckError, UsageError
from baseline.layout import first_problem
from baseline.variant import SUFFIXES, Variant, list_variants, suffix_of
from harness.candidate import Candidate, KernelSpec, identify
from harness.confirm import Confirmed
from harness.confirmation import Samples
from harness.ledger import load_rows
from harness.run_folder import CONFIRMATION, KERNELS, candidate_folder, load_candidate
from harness.settings import OPS

FINGERPRINT = re.compile("[0-9a-f]{32}")  # of a model


@dataclass(frozen=True)
class Asked:
    """What a search was asked, hashes of what it was judged by, and what it was built with (`harness.built_with`)."""

    target: str
    ops: tuple[str, ...]
    min_gain: float
    state: str
    judge: Mapping[str, float]
    contents: Mapping[str, str]
    built_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Winner:
    """The last champion of a run and the seed that it was confirmed against; None while it was not."""

    run: Path
    champion: Candidate
    seed: Candidate
    asked: Asked
    confirmed: Confirmed | None

    @property
    def target(self) -> str:
        """The target that it was measured on."""
        return self.asked.target

    @property
    def changed(self) -> dict[str, KernelSpec]:
        """The kernels that are not the seed's, by op."""
        kept = self.seed.configuration.kernels
        return {op: spec for op, spec in self.champion.configuration.kernels.items() if spec != kept[op]}

    def write_kernels(self, folder: Path) -> dict[str, dict[str, Variant]]:
        """The contracts and sources of both as a folder of kernels, and its variants by op and name.

        CheckError where one is missing, or is not what the candidates' ids were made of.
        """
        try:
            for op in self.champion.configuration.kernels:
                (folder / op / self.target).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.run / KERNELS / op / "contract.yaml", folder / op / "contract.yaml")
                for candidate in (self.seed, self.champion):
                    self._copy_source(candidate, op, folder)
        except (OSError, KeyError) as error:
            raise CheckError(f"{self.run}: its record is not whole: {error}") from None
        return self._variants(folder)

    def _copy_source(self, candidate: Candidate, op: str, folder: Path) -> None:
        name = candidate.configuration.kernels[op].variant
        if Path(name).name != name:
            raise CheckError(f"{self.run}: {name!r} is no variant's name")
        suffix = suffix_of(self.target, name)
        shutil.copyfile(
            candidate_folder(self.run, candidate.id) / f"{op}{suffix}", folder / op / self.target / f"{name}{suffix}"
        )

    def _variants(self, kernels: Path) -> dict[str, dict[str, Variant]]:
        listed = {op: list_variants(kernels, op, self.target) for op in self.champion.configuration.kernels}
        variants = {op: {variant.name: variant for variant in of_op} for op, of_op in listed.items()}
        for candidate in (self.seed, self.champion):
            if identify(candidate.configuration, variants) != candidate.id:
                raise CheckError(f"{self.run}: the recorded sources are not those of candidate {candidate.id}")
        return variants


def load_winner(run: Path) -> Winner:
    """The winner of the search in `run`. UsageError where there is none, CheckError where its record is damaged."""
    rows = load_rows(run / "ledger.tsv")
    if not rows:
        raise UsageError(f"{run} holds no search: it has no ledger.tsv with rows")
    kept = [row for row in rows if row.status == "kept"]
    if not kept:
        raise UsageError(f"{run} holds no winner: its ledger has no row that was kept")
    champion, seed = (load_candidate(run, row.id) for row in (kept[-1], rows[0]))
    if foreign := sorted({*champion.configuration.kernels, *seed.configuration.kernels} - {*OPS}):
        raise CheckError(f"{run}: no op is called {foreign[0]!r}")
    confirmed = _confirmed(run / "summary.json", champion)
    if confirmed is not None:
        confirmed = dataclasses.replace(confirmed, samples=_samples(run / CONFIRMATION, confirmed, champion))
    return Winner(run, champion, seed, _asked(run / "settings.json"), confirmed)


def _asked(path: Path) -> Asked:
    try:
        asked = pydantic.TypeAdapter(Asked).validate_json(path.read_bytes())
    except OSError as error:
        raise CheckError(f"{path} cannot be read: {error.strerror}") from None
    except pydantic.ValidationError as error:
        raise CheckError(f"{path}: not the settings of a search ({first_problem(error)})") from None
    if asked.target not in SUFFIXES:
        raise CheckError(f"{path}: no target is called {asked.target!r}")
    if not FINGERPRINT.fullmatch(asked.contents.get("model", "")):
        raise CheckError(f"{path}: it does not say which model was searched on")
    return asked


def _confirmed(path: Path, champion: Candidate) -> Confirmed | None:
    """What confirmed this champion; None where the search ended before it, or another one was confirmed."""
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_bytes())
        if summary["confirmed"] is None or summary["champion"] != champion.id:
            return None
        return Confirmed.from_json(summary["confirmed"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckError(f"{path}: not the summary of a search ({error!r})") from None


def _samples(path: Path, confirmed: Confirmed, champion: Candidate) -> Samples:
    """The samples of a champion's confirmation, of which its figures must follow."""
    try:
        samples = pydantic.TypeAdapter(Samples).validate_json(path.read_bytes(), strict=True)
        differing = confirmed.differing(samples)
    except FileNotFoundError:
        raise CheckError(f"{path} is missing: the raw samples that the figures of its summary are made of") from None
    except OSError as error:
        raise CheckError(f"{path} cannot be read: {error.strerror}") from None
    except pydantic.ValidationError as error:
        raise CheckError(f"{path}: not the samples of a confirmation ({first_problem(error)})") from None
    except (ValueError, ArithmeticError) as error:
        raise CheckError(f"{path}: not the samples of a confirmation ({error})") from None
    if samples.champion != champion.id:
        raise CheckError(f"{path}: the samples of another champion, {samples.champion!r}")
    if differing:
        raise CheckError(f"{path.parent}: its summary is not what was measured: {differing}")
    return samples
