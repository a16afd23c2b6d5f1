"""A search without a judge, beside a server that answers from a script."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from baseline.layout import TENSORS
from harness import targets
from harness.candidate import Candidate, Configuration, KernelSpec, Status, changed_part, identify
from harness.propose.base import History, Proposer
from harness.propose.claude.call import Call
from harness.propose.claude.event import Kind
from harness.propose.claude.make import Search, make_claude
from harness.propose.claude.settings import ClaudeSettings
from harness.settings import DEFAULT_IO
from harness.shelf import Shelf
from tests.harness.claude.messages_server import MessagesServer
from tests.harness.rows import row

KERNELS = Path(__file__).parents[3] / "kernels"
OPS = ("qmatvec",)
PARTS = (*OPS, "io", "layout")
KERNEL = {
    "op": "qmatvec",
    "target": "cpu",
    "name": "wide",
    "parent": "plain",
    "helpers": "inline float twice(float x) { return 2 * x; }",
    "body": "y[0] = from_float<T>(twice(0));",
    "tunables": [{"name": "ROWS", "values": [4, 2], "when": []}],
    "supports": [{"name": "BITS", "values": [4]}],
    "requires": [],
    "launch": {"threads": 2},
    "hypothesis": "wider loads",
    "expected_gain": 1.2,
    "changed_condition": "",
}
POLICY = {
    "threads": 8,
    "reads_per_expert": 1,
    "cache": "direct",
    "schedule": "graph",
    "method": "auto",
    "stream": "shared",
    "prefetch": "none",
    "parent": "",
    "hypothesis": "more in flight",
    "expected_gain": 1.05,
    "changed_condition": "",
}
LAYOUT = {
    "name": "down_first",
    "order": [f"{projection}.{tensor}" for projection in ("down_proj", "gate_proj", "up_proj") for tensor in TENSORS],
    "align": 16384,
    "tensor_align": 64,
    "parent": "",
    "hypothesis": "what is needed last is read first",
    "expected_gain": 1.05,
    "changed_condition": "",
}
USD = (4 * 100 + 5 * 20 + 0.2 * 1000 + 20 * 50) / 1e6  # of one scripted answer, at the price of the default model


def numbered(number: int) -> dict[str, Any]:
    """A kernel whose code is that of no other number's."""
    return KERNEL | {"name": f"wide_{number}", "body": f"y[0] = {'twice(' * number}0{')' * number};"}


class Fixed(Proposer):
    """Another proposer, whose candidates are known by their number."""

    def __init__(self, seed: Candidate, many: int = 1000) -> None:
        self.seed, self.left, self.told = seed, many, []

    def propose(self, history: History) -> Candidate | None:
        self.left -= 1
        return replace(self.seed, id=f"other-{self.left}", proposer="fixed", changed="io") if self.left >= 0 else None

    def observe(self, candidate, row) -> None:
        self.told.append(candidate.id)

    def withdraw(self, candidate) -> None:
        self.told.append(f"withdrawn {candidate.id}")


class Place:
    """A search's folder with a shelf, a server, and all that the proposer recorded."""

    def __init__(self, folder: Path, server: MessagesServer) -> None:
        self.run, self.server, self.events = folder, server, []
        for op in OPS:
            (folder / "kernels" / op / "cpu").mkdir(parents=True)
            for part in ("contract.yaml", "cpu/plain.cpp"):
                (folder / "kernels" / op / part).write_text((KERNELS / op / part).read_text())
        self.shelf = Shelf({op: {} for op in OPS}, targets.here("cpu"), folder / "kernels")
        kernels = {op: KernelSpec("plain", {"THREADS": 2}) for op in OPS}
        configuration = Configuration(kernels, DEFAULT_IO)
        self.seed = Candidate(identify(configuration, self.shelf), "", "seed", "", configuration, "")
        self.rows = [row(id=self.seed.id, proposer="seed", op="", variant="", tunables="", hypothesis="")]
        self.other = Fixed(self.seed)
        self.earlier: list[Call] = []  # of the same search
        self.calls: dict[int, Call] = {}

    def proposer(self, **settings):
        given = {"model": "claude-opus-5-5", "base_url": self.server.url, "patience_s": 20.0} | settings
        search = Search(
            run=self.run,
            shelf=self.shelf,
            parts=PARTS,
            limits=("memory: 34 GB/s",),
            refuted=lambda: ["tables of 16 values: -2 % on M3 Max"],
            calls=self.earlier,
            journal=lambda call: self.calls.update({call.number: call}),
        )
        return make_claude(ClaudeSettings(**given), search, self.other, self.events.append)

    def history(self, *pending: Candidate) -> History:
        return History(self.seed, self.seed, self.rows, pending)

    def judged(self, candidate: Candidate, status: Status, log: str = "", **changes):
        """A candidate's row, and what the judge leaves in its folder."""
        variant, tunables = changed_part(candidate)
        made = row(id=candidate.id, op=candidate.changed, variant=variant, tunables=tunables, status=status, **changes)
        folder = self.run / "candidates" / candidate.id
        folder.mkdir(parents=True)
        (folder / "build.log").write_text(log)
        self.rows.append(made)
        return made

    @property
    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]


def last_results(asked):
    """The tool results that the last turn of a call brings."""
    return [block for block in asked["messages"][-1]["content"] if block["type"] == "tool_result"]
