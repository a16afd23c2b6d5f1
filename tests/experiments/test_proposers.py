"""What the experiment on proposers makes of its searches' records; nothing is searched, built or timed."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from baseline.variant import list_variants
from experiments import proposers
from experiments.proposers import Arena, curve, curves, draw, found, readme
from harness.candidate import Candidate, Configuration, KernelSpec, Status, identify
from harness.ledger import HEADER, encode
from harness.settings import OPS
from tests.harness.rows import row

KERNELS = Path(__file__).parents[2] / "kernels"
SEED = row(op="", speedup=1.0)


def step(op, speedup, status=Status.KEPT):
    return row(op=op, speedup=speedup, status=status)


@dataclass(frozen=True)
class Asked:
    """As much of a search's settings as is read of them."""

    run: Path
    kernels: Path = KERNELS
    target: str = "cpu"


def recorded(run: Path, rows) -> Asked:
    run.mkdir()
    (run / "ledger.tsv").write_bytes(HEADER + b"".join(map(encode, rows)))
    return Asked(run)


def test_a_curve_is_the_geometric_mean_of_the_ops_gains_so_far():
    rows = [SEED, step("qmatvec", 4.0), step("expert_down", 0.5, Status.TOO_SLOW), step("expert_down", 9.0)]
    rows += [step("qmatvec", 2.0), step("qmatvec", math.nan, Status.WRONG)]
    assert curve(rows, ("qmatvec", "expert_down")) == pytest.approx([2.0, 2.0, 6.0, 72**0.5, 72**0.5])
    assert curve(rows, OPS)[-1] == pytest.approx(72**0.25)  # ops without a gain are as they were


def test_the_curves_are_those_of_the_ledgers(tmp_path):
    asked = {
        ("mutate", 0): recorded(tmp_path / "a", [SEED, step("qmatvec", 16.0), step("qmatvec", 16.0)]),
        ("random", 3): recorded(tmp_path / "b", [SEED, step("expert_down", 1.1, Status.DISCARDED)]),
    }
    made = [tuple(line) for line in curves(asked).itertuples(index=False)]
    assert made == [("mutate", 0, 1, pytest.approx(2.0)), ("mutate", 0, 2, pytest.approx(4.0)), ("random", 3, 1, 1.0)]


GAINS = pd.DataFrame(
    [
        ("mutate", seed, number, gain)
        for seed, ends in enumerate([(2, 8), (3, 9), (4,)])
        for number, gain in enumerate(ends, 1)
    ]
    + [("random", seed, 1, gain) for seed, gain in enumerate((1.0, 1.5, 5.0))],
    columns=["proposer", "seed", "evaluation", "gain"],
)


def test_the_chart_has_each_run_the_median_of_each_proposer_and_the_best_committed():
    (axes,) = draw(GAINS, 6.0).axes
    thick = [list(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 3]
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    assert thick == [[3.0, 8.0], [1.5]] and len(thin) == 6  # a run that ended early stays where it was
    (committed,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert set(committed.get_ydata()) == {6.0}


def test_the_page_has_the_medians_of_the_ends_and_of_the_shares():
    shares = [(op, name, seed, share, "limbs", 20.0) for op in OPS for name, of in SHARES.items() for seed, share in of]
    page = readme(pd.DataFrame(shares, columns=["op", "proposer", "seed", "share", "best", "committed"]), GAINS)
    assert "is 8.0x for mutate and 1.5x for random (medians)" in page and "(1 at least)" in page
    assert all(f"| {op} | limbs | 20.0x | 0.90 | 0.30 |" in page for op in OPS)


SHARES = {"mutate": [(0, 0.5), (1, 0.9), (2, 1.1)], "random": [(0, 0.3), (1, 0.1), (2, 0.4)]}


@pytest.fixture
def arena(monkeypatch):
    """One that knows how much faster each variant is than the plain one, and times nothing."""
    speeds = {"plain": 1.0, "vector": 8.0, "limbs": 20.0, "fused": 2.0, "expanded": 1.5}
    made = object.__new__(Arena)
    made._variants = {op: {v.name: v for v in list_variants(KERNELS, op, "cpu")} for op in OPS}
    kernels = {op: KernelSpec("plain", {"THREADS": 2}) for op in OPS}
    made._plain = Candidate("seed", "", "seed", "", Configuration(kernels), "")
    monkeypatch.setattr(
        Arena, "gain", lambda _, op, old, new: speeds.get(new.variant.name, 0.5) / speeds.get(old.variant, 0.5)
    )
    return made


def test_the_best_committed_variant_is_the_quickest_as_it_is(arena):
    assert [arena.best(op)[0].variant for op in OPS] == ["limbs", "limbs", "limbs", "fused"]
    spec, gain = arena.best("qmatvec")
    assert gain == 20.0 and spec.tunables["ROWS"] == 1


def test_what_was_found_is_a_share_of_the_best_committed(arena, tmp_path):
    """A search that found `vector` for one op, and nothing for the others."""
    kernels = dict(arena._plain.configuration.kernels)
    kernels["qmatvec"] = KernelSpec("vector", {"ROWS": 1, "PREFETCH": 0, "THREADS": 2})
    configuration = Configuration(kernels)
    champion = Candidate(identify(configuration, arena._variants), "", "mutate", "", configuration, "qmatvec")
    one = recorded(tmp_path / "run", [SEED])
    folder = one.run / "candidates" / champion.id
    folder.mkdir(parents=True)
    (folder / "candidate.json").write_text(json.dumps(champion.to_json()))
    for op, spec in kernels.items():
        shutil.copy(arena._variants[op][spec.variant].path, folder / f"{op}.cpp")
    (one.run / proposers.SUMMARY).write_text(json.dumps({"champion": champion.id, "interrupted": False}))
    table = found({("mutate", 0): one}, arena).set_index("op")
    assert table["share"].to_dict() == pytest.approx(dict(zip(OPS, (8 / 20, 1 / 20, 1 / 20, 1 / 2), strict=True)))
    assert set(table["best"]) == {"limbs", "fused"} and table.loc["qmatvec", "committed"] == 20.0


def test_a_search_that_was_cut_off_is_not_complete(tmp_path):
    run = recorded(tmp_path / "run", [SEED]).run
    assert not proposers._complete(run)
    for interrupted in (True, False):
        (run / proposers.SUMMARY).write_text(json.dumps({"champion": "", "interrupted": interrupted}))
        assert proposers._complete(run) is not interrupted
