"""Small searches for proposers, with kernels that exist only as headers: nothing is compiled."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from werkzeug import Request, Response

from harness import targets
from harness.candidate import Candidate, Status, changed_part
from harness.ledger import Ledger, Row
from harness.loop import seed_candidate
from harness.propose.base import History, Proposer
from harness.propose.claude.make import Search, make_claude
from harness.propose.claude.settings import ClaudeSettings
from harness.propose.inbox import Inbox
from harness.propose.mutate import Mutate
from harness.propose.random import Random
from harness.propose.replay import Replay
from harness.rows import seed_row
from harness.settings import DEFAULT_IO
from harness.shelf import Shelf
from harness.study import Study
from tests.harness.claude import messages_server
from tests.harness.claude.place import KERNEL
from tests.harness.rows import row

KERNELS = Path(__file__).parents[3] / "kernels"
OPS = ("expert_down", "qmatvec")
HEADER = """/*---
op: {op}
target: cpu
tunables: {tunables}
launch: {{threads: 1}}
hypothesis: {name} is faster
---*/
{body}
"""
PLAIN = {"THREADS": [2, 1]}
# What can be found beside the plain kernels, by name: tunables and a body that no other has.
OTHERS = {"fast": ({"ROWS": [4, 1, 2]}, "y[0] = 1;"), "odd": ({"UNROLL": [1, 2]}, "y[0] += 1;")}


@dataclass(frozen=True)
class World:
    """A search's shelf and seed, and a folder for what its proposer keeps."""

    folder: Path
    shelf: Shelf
    seed: Candidate


def text(op: str, name: str, tunables: dict, body: str) -> str:
    return HEADER.format(op=op, name=name, tunables=json.dumps(tunables), body=body)


def world(folder: Path) -> World:
    """One with the plain kernels alone; the same one again when the folder holds one already."""
    kernels = folder / "kernels"
    for op in OPS:
        (kernels / op / "cpu").mkdir(parents=True, exist_ok=True)
        shutil.copy(KERNELS / op / "contract.yaml", kernels / op)
        (kernels / op / "cpu" / "plain.cpp").write_text(text(op, "plain", PLAIN, ";"))
    shelf = Shelf({op: {} for op in OPS}, targets.here("cpu"), kernels)
    return World(folder, shelf, seed_candidate(shelf, DEFAULT_IO))


def furnish(here: World) -> None:
    """Puts the other variants on the shelf."""
    for op in OPS:
        for name, (tunables, body) in OTHERS.items():
            if name not in here.shelf[op]:
                here.shelf.add(op, name, text(op, name, tunables, body))


def outcome(candidate: Candidate, status: Status = Status.DISCARDED, speedup: float = 1.0) -> Row:
    """A row of what became of a candidate."""
    variant, tunables = changed_part(candidate)
    return row(
        id=candidate.id,
        parent=candidate.parent,
        op=candidate.changed,
        variant=variant,
        tunables=tunables,
        status=status,
        reason="" if status is Status.KEPT else status.value,
        speedup=speedup,
        speedup_low=0.99 * speedup,
        speedup_high=1.01 * speedup,
        hypothesis=candidate.hypothesis,
    )


def exhaust(proposer: Proposer, seed: Candidate, rows: list[Row], limit: int = 100) -> list[Candidate]:
    """All that is proposed from a champion that nothing beats; `rows` receives the outcomes."""
    proposed = []
    while (candidate := proposer.propose(History(seed, seed, rows))) is not None:
        assert len(proposed) < limit
        rows.append(outcome(candidate))
        proposer.observe(candidate, rows[-1])
        proposed.append(candidate)
    return proposed


def keep_record(run: Path, here: World, judged: list[tuple[Candidate, Row]]) -> Path:
    """Writes what a search of these candidates leaves on disk, as far as a replay reads it."""
    run.mkdir(parents=True)
    with Ledger(run / "ledger.tsv") as ledger:
        ledger.append(seed_row(here.seed, None, 0.0))
        for candidate, outcome_row in judged:
            folder = run / "candidates" / candidate.id
            folder.mkdir(parents=True)
            (folder / "candidate.json").write_text(json.dumps(candidate.to_json()))
            for op, spec in candidate.configuration.kernels.items():
                shutil.copy(here.shelf[op][spec.variant].path, folder / f"{op}.cpp")
            ledger.append(outcome_row)
    return run


def mutate(here: World) -> Proposer:
    furnish(here)
    study = Study(here.folder / "study.db", 0)
    study.recover([])
    return Mutate(study, here.shelf, OPS)


def random(here: World) -> Proposer:
    furnish(here)
    return Random(0, here.shelf, OPS)


def replay(here: World) -> Proposer:
    run = here.folder / "recorded"
    if not run.exists():
        there = world(here.folder / "there")
        rows: list[Row] = []
        proposed = exhaust(random(there), there.seed, rows)
        keep_record(run, there, list(zip(proposed, rows, strict=True)))
    return Replay(run, here.shelf, OPS)


def drop(folder: Path, name: str, content: str) -> Path:
    """A file that was put into an inbox some time ago."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(content)
    os.utime(path, (0, 0))
    return path


def inbox(here: World) -> Proposer:
    for op in OPS:
        for name, (tunables, body) in OTHERS.items():
            drop(here.folder / "inbox", f"{op}_{name}.cpp", text(op, name, tunables, body))
    return Inbox(here.folder / "inbox", here.shelf, OPS, patience_s=0.0)


def model(request: Request) -> Response:
    """A reply: of the kernels that can be found, the first that the prompt does not tell of; a refusal in the end."""
    told = json.dumps(request.get_json()["messages"][0])
    for op in OPS:
        for name, (tunables, body) in OTHERS.items():
            if (hypothesis := f"{name} is faster for {op}") not in told:
                listed = [{"name": tunable, "values": values, "when": []} for tunable, values in tunables.items()]
                own = {"op": op, "name": name, "hypothesis": hypothesis, "tunables": listed, "body": body}
                kernel = KERNEL | own | {"helpers": "", "supports": []}
                return messages_server.streamed(messages_server.tool("propose_kernel", kernel))(request)
    return messages_server.streamed(messages_server.text("That was all."), stop="refusal")(request)


def claude(here: World) -> Proposer:
    """It needs a server that answers as `model` does."""
    study = Study(here.folder / "study.db", 0)
    study.recover([])
    search = Search(here.folder, here.shelf, OPS)
    return make_claude(ClaudeSettings("some-model"), search, Mutate(study, here.shelf, OPS), lambda event: None)


PROPOSERS = {"mutate": mutate, "random": random, "replay": replay, "inbox": inbox, "claude": claude}
