"""A candidate of a search as a configuration: its record, and the sources of its kernels beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

from baseline.contract import load_contract
from baseline.errors import CheckError, UsageError
from baseline.variant import Choice, named_variant, suffix_of
from harness.candidate import Candidate, Configuration, candidate_id


def recorded(path: Path, target: str, kernels: Path) -> tuple[dict[str, Choice], Configuration]:
    """The kernels, by op, and the I/O settings of the candidate.json `path`; the sources, `<op>.cpp`, lie beside it.

    kernels: the folder of contracts. No other source of the same name is taken. UsageError where it is no record, or a
    source for the `target` is missing or broken; CheckError where the sources are not those of which its id was made.
    """
    candidate = record(path)
    specs = candidate.configuration.kernels
    files = {op: path.parent / f"{op}{suffix_of(target, spec.variant)}" for op, spec in specs.items()}
    if candidate_id(candidate.configuration, _texts(files, target)) != candidate.id:
        raise CheckError(f"{path.parent}: the sources of its kernels are not those of candidate {candidate.id}")
    choices = {}
    for op, spec in specs.items():
        variant = named_variant(files[op], spec.variant, target, load_contract(kernels / op))
        choices[op] = Choice(variant, spec.tunables)
    return choices, candidate.configuration


def record(path: Path) -> Candidate:
    """The candidate in a `candidate.json` that a user named. UsageError where it is none."""
    try:
        return Candidate.from_json(json.loads(path.read_text()))
    except OSError as error:
        raise UsageError(f"configuration {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"configuration {path} is not a candidate.json of a search ({error})") from None


def _texts(files: Mapping[str, Path], target: str) -> dict[str, str]:
    try:
        return {op: file.read_text() for op, file in files.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"a candidate.json for target={target} has its kernels' sources beside it: {error}") from None
