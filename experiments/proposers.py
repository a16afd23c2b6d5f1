"""What mutate is worth: its searches from the plain CPU kernels beside random's, and what is committed.

    python -m experiments.proposers [FOLDER]

Runs five searches of each (about ten minutes each; one that is complete is not run again, one that was cut off goes
on), then times what each found against the best committed variant of its op. Writes curves.tsv, found.tsv,
proposers.png, proposers.svg and README.md into FOLDER, results/proposers by default; the runs are in runs/proposers.
"""

import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.progress import track

from baseline.errors import CheckError
from baseline.variant import PLAIN, Choice
from harness import targets
from harness.build import build
from harness.candidate import KernelSpec
from harness.contest import ContestPlan
from harness.display import console, watch
from harness.judge import Judge
from harness.ledger import Row, load_rows
from harness.loop import search, seed_candidate
from harness.models import golden_folder, packed_model
from harness.paths import BUNDLED, cache_folder, data_folder
from harness.points import points
from harness.progress import Silent
from harness.propose.settings import ProposerSettings
from harness.recorded import recorded
from harness.report import BLUE, GREY, ORANGE
from harness.run_folder import candidate_folder
from harness.settings import ALL, OPS, SearchSettings, writable
from harness.shelf import usable_variants

PROPOSERS = ("mutate", "random")
RUNS, EVALUATIONS, MINUTES = 5, 80, 60.0
SUMMARY = "summary.json"
PLAN = ContestPlan(blocks=(20, 20))


def settings(name: str, number: int, runs: Path) -> SearchSettings:
    """The search of a proposer with this seed."""
    packed = packed_model(BUNDLED, print)
    run = runs / f"{name}-{number}"
    return SearchSettings(
        run=run,
        packed=packed.folder,
        kernels=data_folder("kernels"),
        cache=cache_folder() / "build",
        golden=golden_folder(None, packed.fingerprint, packed.bundled),
        ops=OPS,
        variants=PLAIN,
        minutes=MINUTES,
        candidates=EVALUATIONS,
        seed=number,
        resume=(run / "ledger.tsv").exists(),
        proposer=ProposerSettings(name),
    )


def curve(rows: Sequence[Row], ops: Sequence[str]) -> list[float]:
    """After each evaluation, the geometric mean over `ops` of the gain over the plain kernels so far."""
    best, means = dict.fromkeys(ops, 1.0), []
    for point in points(rows):
        best[point.row.op] = point.best
        means.append(math.exp(sum(map(math.log, best.values())) / len(best)))
    return means


class Arena:
    """Times what was found against the committed variants, as a search times candidates."""

    def __init__(self, asked: SearchSettings, scratch: Path) -> None:
        """Measures first what it takes to judge: the plain kernels' errors, and what no kernel can beat."""
        self._folder, self._target = writable(scratch / "candidate"), targets.here(asked.target)
        asked = dataclasses.replace(asked, variants=ALL, run=scratch, resume=False)
        self._variants = usable_variants(asked, self._target)
        self._judge = Judge(asked, self._target, self._variants, Silent(), scratch)
        self._plain = seed_candidate(self._variants, asked.io)
        self._judge.measure_seed(self._plain, asked.ops)

    def best(self, op: str) -> tuple[KernelSpec, float]:
        """The quickest committed variant of an op, its tunables as they are, and its gain over the plain one."""
        choices = [Choice.defaults(variant) for name, variant in self._variants[op].items() if name != PLAIN]
        plain = self._plain.configuration.kernels[op]
        gains = {choice.variant.name: self.gain(op, plain, choice) for choice in choices}
        name = max(gains, key=gains.__getitem__)
        return KernelSpec(name, Choice.defaults(self._variants[op][name]).tunables), gains[name]

    def gain(self, op: str, old: KernelSpec, new: Choice) -> float:
        """How much faster `new` is than `old`. CheckError where it cannot be timed."""
        champion = self._plain.configuration.with_kernel(op, old)
        built, library = build(new, self._judge.contracts[op], self._target.timed, self._judge.settings.cache)
        benched = self._judge.bench(op, champion, library, self._folder, PLAN) if library is not None else None
        if benched is None or benched.speedup is None:
            failure = built.failure or (benched and benched.failure)
            raise CheckError(f"{op} {new.variant.name}: {failure.reason if failure else 'was not measured'}")
        return benched.speedup.value


def searched(runs: Path) -> dict[tuple[str, int], SearchSettings]:
    """All searches, each complete: the settings of each by proposer and seed."""
    asked = {(name, seed): settings(name, seed, runs) for seed in range(RUNS) for name in PROPOSERS}
    for one in asked.values():
        if not _complete(one.run):
            with watch(one) as observer:
                if search(one, observer).interrupted:
                    raise KeyboardInterrupt
    return asked


def _complete(run: Path) -> bool:
    summary = run / SUMMARY
    return summary.exists() and not json.loads(summary.read_text())["interrupted"]


def found(asked: Mapping[tuple[str, int], SearchSettings], arena: Arena) -> pd.DataFrame:
    """What each search found, by op: its speed as a share of the best committed variant's, which is the gain over the
    plain kernel divided by `committed`."""
    rows = []
    for op in OPS:
        best, committed = arena.best(op)
        for (name, seed), one in track(asked.items(), op, console=console()):
            champion = json.loads((one.run / SUMMARY).read_text())["champion"]
            record = candidate_folder(one.run, champion) / "candidate.json"
            choices, _ = recorded(record, one.target, one.kernels)
            rows.append((op, name, seed, arena.gain(op, best, choices[op]), best.variant, committed))
    return pd.DataFrame(rows, columns=["op", "proposer", "seed", "share", "best", "committed"])


def curves(asked: Mapping[tuple[str, int], SearchSettings]) -> pd.DataFrame:
    """The gain after each evaluation, a row each."""
    rows = [
        (name, seed, number, gain)
        for (name, seed), one in asked.items()
        for number, gain in enumerate(curve(load_rows(one.run / "ledger.tsv"), OPS), start=1)
    ]
    return pd.DataFrame(rows, columns=["proposer", "seed", "evaluation", "gain"])


def draw(gains: pd.DataFrame, committed: float) -> Figure:
    """All runs thin, the median of each proposer thick; dashed: the best committed variants."""
    figure = Figure(figsize=(9, 5.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, colour in zip(PROPOSERS, (BLUE, ORANGE), strict=True):
        own = gains[gains["proposer"] == name].pivot(index="evaluation", columns="seed", values="gain").ffill()
        axes.plot(own.index, own, color=colour, linewidth=0.8, alpha=0.5)
        middle = own.median(axis=1)
        axes.plot(own.index, middle, color=colour, linewidth=3)
        axes.annotate(name, (own.index[-1], middle.iloc[-1]), (6, 0), textcoords="offset points", color=colour, size=14)
    axes.axhline(committed, color=GREY, linestyle="--")
    axes.annotate("best committed variants", (1, committed), (0, 4), textcoords="offset points", color="black", size=12)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_xlim(0, EVALUATIONS * 1.12)
    axes.set_xlabel("evaluations", size=13)
    axes.set_ylabel("gain over the plain kernels\n(geometric mean of the four ops)", size=13)
    axes.tick_params(labelsize=12)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def readme(shares: pd.DataFrame, gains: pd.DataFrame) -> str:
    """The figures that the chart shows, in a table of medians."""
    middle = shares.groupby(["op", "proposer"])["share"].median().to_dict()
    best = shares.groupby("op")[["best", "committed"]].first().to_dict("index")
    lines = ["| op | best committed variant | over plain | mutate | random |", "|---|---|---:|---:|---:|"]
    for op in OPS:
        cells = " | ".join(f"{middle[op, name]:.2f}" for name in PROPOSERS)
        lines.append(f"| {op} | {best[op]['best']} | {best[op]['committed']:.1f}x | {cells} |")
    ends = gains.groupby(["proposer", "seed"])["gain"].last().groupby("proposer").median()
    done = gains.groupby(["proposer", "seed"])["evaluation"].max()
    return README.format(
        runs=RUNS,
        evaluations=EVALUATIONS,
        least=done.min(),
        mutate=ends["mutate"],
        random=ends["random"],
        table="\n".join(lines),
    )


README = """# What mutate finds from the plain kernels

![Gains by evaluation](proposers.png)

Made by `python -m experiments.proposers`: {runs} searches each of mutate and random on the bundled model, from the
plain CPU kernels, without the committed variants, of {evaluations} evaluations at most ({least} at least). In the end
the geometric mean of the gains over the four ops is {mutate:.1f}x for mutate and {random:.1f}x for random (medians).

What was found was then timed against the quickest committed variant of its op (its tunables as they are): its speed as
a share of that one's, medians.

{table}
"""


def main(folder: Path, runs: Path = Path("runs/proposers")) -> None:
    """Searches what has not been searched yet, times what was found, writes the files."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = searched(runs)
    with tempfile.TemporaryDirectory(prefix="nightforge-proposers-") as scratch:
        shares = found(asked, Arena(next(iter(asked.values())), Path(scratch)))
    gains = curves(asked)
    for table, name in ((gains, "curves.tsv"), (shares, "found.tsv")):
        table.to_csv(folder / name, sep="\t", index=False, float_format="%.4g")
    committed = shares.groupby("op")["committed"].first()
    with rc_context({"svg.hashsalt": "nightforge", "svg.fonttype": "none"}):
        figure = draw(gains, math.exp(sum(map(math.log, committed)) / len(committed)))
        figure.savefig(folder / "proposers.png")
        figure.savefig(folder / "proposers.svg", metadata={"Date": None})
    (folder / "README.md").write_text(readme(shares, gains))


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "results/proposers"))
