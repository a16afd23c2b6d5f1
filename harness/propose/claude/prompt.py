"""What the model is told, and in which order: first what never changes during a search, so that a cache can hold it.

The stable part: the rules, the paper or the digest, the contracts, the target's rules, the machine. Then the
champion with its sources, what was refuted before, what this search has tried.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baseline.targets.cpu_source import HEADERS, text_of
from baseline.variant import Variant
from harness.candidate import ENGINE_PARTS, IO, LAYOUT, Candidate
from harness.ledger import Row
from harness.propose.base import History
from harness.propose.claude.reading import line

PROMPTS = Path(__file__).parents[1] / "prompts"
CACHED = {"type": "ephemeral"}
ROWS = 80  # of the ledger that are shown; the model can ask for the others
Block = dict[str, Any]
Refuted = Callable[[], Sequence[str]]
"""Gives the ideas that are known not to work, a line each."""


@dataclass(frozen=True)
class Knowledge:
    """What is known beside a search's history.

    kernels: the folder of contracts. parts: the ops that may be changed, "io" and "layout". limits: what this machine
    was measured to do, a line each. paper: a PDF that takes the digest's place.
    """

    kernels: Path
    target: str
    parts: tuple[str, ...]
    limits: tuple[str, ...] = ()
    refuted: Refuted = tuple
    paper: Path | None = None

    @property
    def ops(self) -> list[str]:
        """The ops among the parts."""
        return [part for part in self.parts if part not in ENGINE_PARTS]


def system() -> list[Block]:
    """The rules: what the system prompt says."""
    return [text(_page("rules.md"))]


def stable(known: Knowledge) -> list[Block]:
    """The part that every call of a search begins with; its last block ends what is cached."""
    contracts = [f"Contract of {op}:\n{(known.kernels / op / 'contract.yaml').read_text()}" for op in known.ops]
    machine = "\n".join(["# This machine, as measured", *(known.limits or ["nothing was measured"])])
    blocks = [_paper(known.paper), *map(text, contracts), *map(text, _target(known.target)), text(machine)]
    blocks[-1] = blocks[-1] | {"cache_control": CACHED}
    return blocks


def changing(
    history: History, shelf: Mapping[str, Mapping[str, Variant]], known: Knowledge, refuted: Sequence[str]
) -> list[Block]:
    """What a search has come to. `refuted`: ideas that are known not to work, a line each."""
    champion = "\n\n".join(_champion(history.champion, shelf, known))
    before = "\n".join(["# Refuted before, here or elsewhere", *(refuted or ["nothing yet"])])
    return [text(champion), text(before), text(_tried(history.rows, history.pending))]


def ask(known: Knowledge, number: int = 1, among: int = 1) -> Block:
    """The last words. `number`, `among`: which of how many that are asked the same at once."""
    words = f"Propose what is most likely to beat the champion. What may be changed: {', '.join(known.parts)}."
    if among > 1:
        words += f" {among} of you are asked this at once: rank your ideas by what they promise, and propose the one "
        words += f"that is number {number}."
    return text(words)


def text(words: str) -> Block:
    """A text block."""
    return {"type": "text", "text": words}


def _page(name: str) -> str:
    return (PROMPTS / name).read_text()


def _paper(path: Path | None) -> Block:
    if path is None:
        return text(_page("digest.md"))
    source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(path.read_bytes()).decode()}
    return {"type": "document", "source": source}


def _target(target: str) -> list[str]:
    """The target's rules; for the CPU also the text that stands before every kernel."""
    if target != "cpu":
        return [_page(f"{target}.md")]
    return [_page("cpu.md"), *(f"// {name}\n{text_of(name)}" for name in HEADERS)]


def _champion(champion: Candidate, shelf: Mapping[str, Mapping[str, Variant]], known: Knowledge) -> Sequence[str]:
    """The champion's kernels with their sources, its I/O policy, and what else is on the shelf."""
    told = [f"# The champion: candidate {champion.id}"]
    for op in known.ops:
        spec = champion.configuration.kernels[op]
        others = ", ".join(name for name in shelf[op] if name != spec.variant)
        source = shelf[op][spec.variant].path.read_text()
        told.append(f"## {op}: {spec.variant} {spec.written()[1]}\nOther variants: {others or 'none'}.\n{source}")
    if IO in known.parts:
        told.append(f"## I/O policy: {dict(champion.configuration.io)}")
    if LAYOUT in known.parts and champion.configuration.layout is not None:
        told.append(f"## Layout of an expert's record: {champion.configuration.layout.to_json()}")
    return told


def _tried(rows: Sequence[Row], pending: Sequence[Candidate]) -> str:
    shown = [line(row) for row in rows[-ROWS:]]
    if len(rows) > len(shown):
        shown.insert(0, f"[{len(rows) - len(shown)} earlier rows: read_ledger]")
    waiting = [f"{candidate.id}: {candidate.changed}, not judged yet | {candidate.hypothesis}" for candidate in pending]
    head = "# What this search has tried: candidate | outcome | speed-up over the champion of its time | hypothesis"
    return "\n".join([head, *shown, *waiting])
