"""Searches with target=metal: without a GPU, whatever machine runs the tests, then resumed where one can measure."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import time

import pytest

from baseline.errors import UsageError
from harness import targets
from harness.candidate import Stage, Status
from harness.display import print_summary
from harness.ledger import encode, load_rows, unmeasured
from harness.loop import search
from harness.propose.writer import Writer
from harness.report import write_report
from harness.sandbox import environment
from harness.settings import SearchSettings
from harness.study import Study
from harness.targets import Emulated, Target
from tests.harness.metal_variants import BAD, RIGHT, SLOW, line_of, write_contract, write_variant

WITHOUT_GPU = Target("metal", (Emulated(),), measures=False, elsewhere="a Mac")
# What a Mac does, but with the emulator's times: this one step of the path is not Apple's.
MAC = Target("metal", (Emulated(),), measures=True)
SCRIPT = """
import json, sys
from pathlib import Path
from harness import targets
from harness.loop import search
from harness.settings import SearchSettings
from harness.targets import Emulated, Target
targets.here = lambda name: Target(name, (Emulated(),), False, "a Mac")
given = json.loads(sys.argv[1])
del given["proposer"]  # the default one
paths = {name: Path(given.pop(name)) for name in ("run", "packed", "kernels", "cache", "golden")}
search(SearchSettings(**paths, **given))
"""


@pytest.fixture
def on(monkeypatch):
    """Chooses the machine that the search believes to be on."""
    return lambda target: monkeypatch.setattr(targets, "here", lambda name: target)


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels, on, monkeypatch):
    """A search of qmatvec whose seed is slow, with one faster variant, on a machine without a GPU. It writes none."""
    on(WITHOUT_GPU)
    monkeypatch.setattr(Writer, "write", lambda *_: False)
    write_contract(kernels)
    write_variant(kernels, "plain", SLOW)
    write_variant(kernels, "fast", RIGHT)
    return SearchSettings(
        tmp_path / "run",
        packed,
        kernels,
        cache,
        golden,
        target="metal",
        ops=("qmatvec", "io"),
        timeout_s=20.0,
        candidates=1,
    )


def rows_of(settings):
    return load_rows(settings.run / "ledger.tsv")


def test_what_is_right_waits_and_what_is_not_is_told(settings, kernels, capfd):
    paths = {name: write_variant(kernels, name, body) for name, body in BAD.items()}
    summary = search(dataclasses.replace(settings, candidates=8))
    seed, *rows = rows_of(settings)
    outcomes = {row.variant: (row.status, row.stage) for row in rows[:6]}
    assert outcomes == {
        "does_not_compile": (Status.FAILED_BUILD, Stage.BUILD),
        "too_wide": (Status.FAILED_BUILD, Stage.BUILD),
        "out_of_bounds": (Status.UNSAFE, Stage.CHECK),
        "race": (Status.UNSAFE, Stage.CHECK),
        "skips_the_biases": (Status.WRONG, Stage.CHECK),
        "fast": (Status.UNMEASURED, Stage.CHECK),
    }
    reasons = {row.variant: row.reason for row in rows[:6]}
    places = {"does_not_compile": "no_such_name", "out_of_bounds": "y[m * N]", "race": "last[0]"}
    for name, text in places.items():
        assert line_of(paths[name], text) in reasons[name], reasons[name]
    assert ": race: " in reasons["race"] and ": out of bounds: " in reasons["out_of_bounds"]
    race = next(row for row in rows if row.variant == "race")
    samples = json.loads((settings.run / "candidates" / race.id / "samples.json").read_text())
    assert reasons["race"].startswith(samples["checked"]["findings"][0])
    # Then the tunables, of the seed and of what waits; never an I/O policy, which could only be timed.
    assert sorted((row.op, row.variant, row.tunables) for row in rows[6:]) == [
        ("qmatvec", name, '{"WIDTH": 8}') for name in ("fast", "plain")
    ]
    assert all(math.isnan(row.speedup) and math.isnan(row.engine_speedup) for row in rows)
    assert seed.stage is Stage.CHECK and summary.champion == seed.id and summary.confirmed is None
    assert (summary.evaluated, summary.kept, summary.unmeasured, summary.speedup) == (8, 0, 3, None)
    assert summary.next == f"nightforge search --resume run={settings.run} on a Mac"
    assert all(state.is_finished() for state in Study(settings.run / "study.db", 0).states())
    assert search(dataclasses.replace(settings, resume=True)).evaluated == 8  # no idea is left, and none comes twice
    chart, table = write_report(settings.run)
    assert chart is None and not (settings.run / "progress.png").exists()
    assert "not measured yet: 3." in table.read_text()
    print_summary(summary, chart)
    assert f"unmeasured: 3\ngo on with: {summary.next}\nrecord: " in capfd.readouterr().err


def test_what_waits_is_timed_first_where_that_can_be_done(settings, on, short, tmp_path):
    search(dataclasses.replace(settings, candidates=2))
    before = rows_of(settings)
    assert [row.status for row in before[1:]] == [Status.UNMEASURED] * 2
    # The folders lie elsewhere there.
    moved = dataclasses.replace(
        settings,
        resume=True,
        run=shutil.copytree(settings.run, tmp_path / "mac" / "run"),
        kernels=shutil.copytree(settings.kernels, tmp_path / "mac" / "kernels"),
        golden=shutil.copytree(settings.golden, tmp_path / "mac" / "golden"),
        candidates=2,
    )
    on(MAC)
    summary = search(moved)
    rows = rows_of(moved)
    assert list(map(encode, rows[:3])) == list(map(encode, before))
    assert [row.kernel for row in rows[3:]] == [row.kernel for row in before[1:]] and not unmeasured(rows)
    assert all(row.status in (Status.KEPT, Status.DISCARDED, Status.TOO_SLOW) for row in rows[3:])
    fast = rows[3]
    assert (fast.variant, fast.status, fast.id) == ("fast", Status.KEPT, before[1].id)
    assert fast.speedup_low > 1.02 and fast.engine_speedup > 0
    assert (summary.evaluated, summary.unmeasured, summary.next) == (2, 0, "")
    assert summary.speedup == summary.confirmed.ops["qmatvec"].value > 1
    samples = json.loads((moved.run / "candidates" / fast.id / "samples.json").read_text())
    assert len(samples["benched"]["candidate_s"]) >= 12
    chart, table = write_report(moved.run)
    assert chart is not None and "not measured" not in table.read_text()


def test_kill_9_loses_nothing(settings, kernels):
    write_variant(kernels, "other", RIGHT + "// another")
    settings = dataclasses.replace(settings, candidates=40, minutes=10)
    given = json.dumps(dataclasses.asdict(settings), default=str)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, given], env=environment())
    deadline = time.monotonic() + 100
    while len(rows_of(settings)) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = rows_of(settings)
    search(dataclasses.replace(settings, resume=True, candidates=2))
    rows = rows_of(settings)
    assert list(map(encode, rows[: len(before)])) == list(map(encode, before)) and len(rows) == len(before) + 2
    assert len({row.kernel for row in rows}) == len(rows)


def test_a_changed_source_is_not_timed(settings, kernels, on):
    search(settings)
    write_variant(kernels, "fast", RIGHT + "// changed")
    on(MAC)
    with pytest.raises(UsageError, match=r"a kernel of candidate \w+ has changed or is gone"):
        search(dataclasses.replace(settings, resume=True))


def test_another_search_is_not_resumed(settings, kernels):
    search(dataclasses.replace(settings, candidates=0))
    for change, message in (
        ({"target": "cpu"}, "began with target metal, not cpu"),
        ({"min_gain": 0.5}, "began with min_gain 0.02, not 0.5"),
        ({"ops": ("io",)}, "an I/O policy can only be timed, on a Mac"),
        ({"ops": ("expert_down",)}, r"expert_down/metal holds no \.metal file"),
    ):
        with pytest.raises(UsageError, match=message):
            search(dataclasses.replace(settings, resume=True, **change))
    contract = kernels / "qmatvec" / "contract.yaml"
    contract.write_text(contract.read_text() + "\n")
    with pytest.raises(UsageError, match="began with contracts"):
        search(dataclasses.replace(settings, resume=True))
