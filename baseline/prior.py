"""What others tried before: the experiments of Flash-MoE and of its fork on streamed experts, kept and discarded alike.

`prior.tsv` holds one a row, with the figures that were logged. Where a log names no condition it is that of the rows
kept before it; on the M5 Max, `A after B` sets a figure beside the last one that was kept.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TextIO

from baseline.errors import CheckError

PATH = Path(__file__).with_name("prior.tsv")
AREAS = (
    "qmatvec",
    "expert_gate_up",
    "expert_down",
    "gated_delta_step",
    "attention",
    "combine",
    "norm",
    "routing",
    "io",
    "layout",
    "schedule",
    "quality",
)
ANY = "any"  # as a target: it says as much of every one
TARGETS = (ANY, "cpu", "metal", "cuda")


class Outcome(StrEnum):
    """How an experiment ended. REVERTED was kept at first; VOID has a figure that says nothing."""

    KEPT = "kept"
    DISCARDED = "discarded"
    REVERTED = "reverted"
    VOID = "void"
    NOT_BUILT = "not_built"

    @property
    def refuted(self) -> bool:
        """Whether it speaks against the idea."""
        return self in (Outcome.DISCARDED, Outcome.REVERTED, Outcome.NOT_BUILT)


@dataclass(frozen=True)
class Experiment:
    """One experiment. `why` is '' where nobody knows.

    area: of `AREAS`. target: of `TARGETS`. tags: alternatives, each a set of beginnings of words, all of which occur
    in a text that has the same idea.
    """

    id: str
    machine: str
    idea: str
    area: tuple[str, ...]
    target: str
    condition: str
    effect: str
    verdict: Outcome
    why: str
    tags: tuple[frozenset[str], ...]


NAMES = tuple(entry.name for entry in fields(Experiment))
MAY_BE_EMPTY = ("why", "tags")


@cache
def prior() -> tuple[Experiment, ...]:
    """All experiments, in the order of their logs."""
    with PATH.open(encoding="utf-8", newline="") as file:
        return read(file)


def read(file: TextIO) -> tuple[Experiment, ...]:
    """The experiments of an open TSV file. CheckError names the line that is none, and what is wrong with it."""
    lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    if tuple(lines.fieldnames or ()) != NAMES:
        raise CheckError(f"prior experiments: the columns are {lines.fieldnames}, not {', '.join(NAMES)}")
    found: dict[str, Experiment] = {}
    for cells in lines:
        try:
            experiment = _experiment(cells)
        except ValueError as error:
            raise CheckError(f"prior experiments, line {lines.line_num}: {error}") from None
        if experiment.id in found:
            raise CheckError(f"prior experiments, line {lines.line_num}: a second {experiment.id}")
        found[experiment.id] = experiment
    return tuple(found.values())


def _experiment(cells: Mapping[str, str]) -> Experiment:
    if len(cells) != len(NAMES) or None in cells.values():
        raise ValueError(f"it has not {len(NAMES)} cells")
    for name, cell in cells.items():
        if not cell and name not in MAY_BE_EMPTY:
            raise ValueError(f"{name} is empty")
    area, verdict = tuple(cells["area"].split()), Outcome(cells["verdict"])
    for name in area:
        if name not in AREAS:
            raise ValueError(f"area is {name!r}; it may be {', '.join(AREAS)}")
    if cells["target"] not in TARGETS:
        raise ValueError(f"target is {cells['target']!r}; it may be {', '.join(TARGETS)}")
    tags = tuple(frozenset(words.split()) for words in cells["tags"].split("|") if words)
    if verdict.refuted and not tags:
        raise ValueError(f"{cells['id']} is refuted, and has no tags by which it could be known again")
    return Experiment(**{**cells, "area": area, "verdict": verdict, "tags": tags})  # type: ignore[arg-type]
