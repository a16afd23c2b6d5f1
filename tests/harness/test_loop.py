"""Whole searches, with real children, a real engine and kernels that misbehave."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from baseline.errors import CheckError, UsageError
from harness.built_with import built_with
from harness.candidate import Stage, Status
from harness.costs import Part
from harness.judge import Judge
from harness.ledger import HEADER, Ledger, encode, load_rows
from harness.loop import search
from harness.sandbox import environment
from harness.settings import DEFAULT_JUDGE, OPS, SearchSettings
from harness.study import Study
from tests.harness.tampering import unnoticed
from tests.harness.variants import BAD, FAST, write_variant

TIMEOUT_S = 6.0
# A search in another process; its argument holds the fields of SearchSettings.
SCRIPT = """
import json, sys
from pathlib import Path
from harness.loop import search
from harness.settings import SearchSettings
from tests.harness.short_runs import shorten
shorten(setattr)
given = json.loads(sys.argv[1])
del given["proposer"]  # the default one
paths = {name: Path(given.pop(name)) for name in ("run", "packed", "kernels", "cache", "golden")}
summary = search(SearchSettings(**paths, **given))
print(json.dumps(summary.to_json()))
"""


class Recorder:
    """An observer that remembers what it was told."""

    def __init__(self):
        self.stages, self.rows, self.champions, self.noises = [], [], [], []

    def on_stage(self, candidate, stage):
        self.stages.append((candidate.id, stage))

    def on_row(self, row):
        self.rows.append(row)

    def on_champion(self, candidate, row):
        self.champions.append(candidate.id)

    def on_noise(self, run):
        self.noises.append(run)


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels, short):
    """A search of qmatvec with one faster variant."""
    write_variant(kernels, "fast", FAST, bits="2, 4, 8")
    return SearchSettings(
        tmp_path / "run", packed, kernels, cache, golden, ops=("qmatvec",), timeout_s=TIMEOUT_S, candidates=3
    )


@pytest.fixture
def unmeasured(monkeypatch):
    """Searches of this process that measure nothing of their seed, and confirm nothing."""
    for stage in ("measure_seed", "open", "check_engine"):
        monkeypatch.setattr(Judge, stage, lambda *_: None)
    unconfirmed(monkeypatch)


def unconfirmed(monkeypatch):
    monkeypatch.setattr("harness.loop.confirm", lambda *_: None)


def arguments(settings):
    return json.dumps(dataclasses.asdict(settings), default=str)


def start(settings):
    command = [sys.executable, "-c", SCRIPT, arguments(settings)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)


def wait_for_rows(settings, count, process):
    deadline = time.monotonic() + 120
    while len(load_rows(settings.run / "ledger.tsv")) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_search_keeps_the_fast_one_and_records_the_bad_ones(settings, kernels):
    bad = ["does_not_compile", "leaves_an_element", "writes_past_its_output"]
    for name in bad:
        write_variant(kernels, name, BAD[name])
    seen = Recorder()
    summary = search(dataclasses.replace(settings, candidates=4), seen)
    rows = load_rows(settings.run / "ledger.tsv")
    assert list(map(encode, seen.rows)) == list(map(encode, rows))  # nan is not equal to nan
    outcomes = {row.variant: (row.status, row.stage) for row in rows[1:]}
    assert outcomes == {
        "does_not_compile": (Status.FAILED_BUILD, Stage.BUILD),
        "fast": (Status.KEPT, Stage.ENGINE),
        "leaves_an_element": (Status.WRONG, Stage.CHECK),
        "writes_past_its_output": (Status.CRASHED, Stage.CHECK),
    }
    fast = next(row for row in rows if row.variant == "fast")
    assert seen.champions == [rows[0].id, fast.id] and fast.parent == rows[0].id
    assert summary.champion == fast.id and (summary.evaluated, summary.kept) == (4, 1)
    assert summary.confirmed.ops.keys() == {"qmatvec"} and summary.speedup_low > 1
    assert summary.speedup == summary.confirmed.ops["qmatvec"].value and not summary.language_model
    parts, phases = summary.costs.parts, summary.costs.phases
    assert [*phases] == ["opening", "search", "confirmation"] and sum(phases.values()) < sum(parts.values())
    assert all((parts[part] > 0) == (part is not Part.WAITING) for part in Part) and summary.costs.candidates == 4
    folder = settings.run / "candidates" / fast.id
    assert {"candidate.json", "samples.json", "build.log", "qmatvec.cpp"} <= {p.name for p in folder.iterdir()}
    samples = json.loads((folder / "samples.json").read_text())
    assert len(samples["benched"]["champion_s"]) == len(samples["benched"]["candidate_s"]) >= 12
    assert json.loads((settings.run / "summary.json").read_text())["champion"] == fast.id
    for path in settings.run.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)  # of Infinity and NaN


def test_kill_9_loses_nothing(settings, kernels, monkeypatch):
    for name in BAD.keys() - {"loops"}:
        write_variant(kernels, f"then_{name}", BAD[name])
    settings = dataclasses.replace(settings, candidates=40, minutes=10)
    process = start(settings)
    wait_for_rows(settings, 3, process)
    time.sleep(0.4)  # into the next candidate
    process.kill()
    process.wait()
    before = load_rows(settings.run / "ledger.tsv")
    unconfirmed(monkeypatch)
    with pytest.raises(UsageError, match="already holds a search"):
        search(settings)
    summary = search(dataclasses.replace(settings, resume=True, candidates=2))
    rows = load_rows(settings.run / "ledger.tsv")
    assert list(map(encode, rows[: len(before)])) == list(map(encode, before))
    assert len(rows) == len(before) + 2
    assert summary.champion == [row.id for row in before if row.status is Status.KEPT][-1]
    assert len({row.id for row in rows}) == len(rows)
    assert len({(row.op, row.variant, row.tunables) for row in rows}) == len(rows)
    assert summary.evaluated == len(rows) - 1 and not summary.interrupted
    assert summary.kept == sum(row.status is Status.KEPT for row in rows) - 1
    assert all(state.is_finished() for state in Study(settings.run / "study.db", 0).states())


def test_ctrl_c_ends_it_cleanly(settings):
    process = start(dataclasses.replace(settings, candidates=40, minutes=10))
    wait_for_rows(settings, 2, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    summary = json.loads(output)
    rows = load_rows(settings.run / "ledger.tsv")
    assert summary["interrupted"] and summary["confirmed"] is None and summary["speedup"] is None
    assert summary["evaluated"] == len(rows) - 1
    assert summary["champion"] == next(row.id for row in reversed(rows) if row.status is Status.KEPT)


def test_ctrl_c_between_a_row_and_its_search_loses_no_row(settings, unmeasured, monkeypatch):
    """The row is on the disk already when the search hears of it."""

    def interrupted(self, line):
        write(self, line)
        if line != HEADER:
            raise KeyboardInterrupt

    write = Ledger._write
    monkeypatch.setattr(Ledger, "_write", interrupted)
    summary = search(settings)
    (seed,) = load_rows(settings.run / "ledger.tsv")
    assert summary.interrupted and summary.champion == seed.id and summary.evaluated == 0


def test_without_candidates_the_seed_is_confirmed_and_must_stay(settings, kernels):
    summary = search(dataclasses.replace(settings, candidates=0))
    assert (summary.evaluated, summary.kept, summary.speedup, summary.speedup_low) == (0, 0, 1.0, 1.0)
    assert json.loads((settings.run / "settings.json").read_text())["built_with"] == built_with()
    plain = kernels / "qmatvec" / "cpu" / "plain.cpp"
    plain.write_text(plain.read_text() + "\n")
    with pytest.raises(UsageError, match="have changed since this search began"):
        search(dataclasses.replace(settings, resume=True))


def test_a_run_from_before_an_op_existed_is_not_resumed(settings, unmeasured, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr("harness.shelf.OPS", OPS[:-1])
        search(dataclasses.replace(settings, candidates=0))
    with pytest.raises(UsageError, match="the ops, their plain kernels or the model's layout have changed"):
        search(dataclasses.replace(settings, resume=True))


class Tamperer(Recorder):
    """Changes something when a candidate comes to a stage."""

    def __init__(self, stage, change):
        super().__init__()
        self.stage, self.change = stage, change

    def on_stage(self, candidate, stage):
        super().on_stage(candidate, stage)
        if stage is self.stage and candidate.proposer != "seed":
            self.change()


def test_what_judges_must_not_change_during_a_search(settings, kernels):
    """It stops before the candidate is kept or the champion confirmed, whatever the file's time says."""
    tamperer = Tamperer(Stage.BENCH, lambda: unnoticed(kernels / "qmatvec" / "contract.yaml"))
    with pytest.raises(CheckError, match="the contracts changed during the search"):
        search(settings, tamperer)
    rows = load_rows(settings.run / "ledger.tsv")
    assert all(row.status is not Status.KEPT for row in rows[1:])
    with pytest.raises(UsageError, match="began with contracts"):
        search(dataclasses.replace(settings, resume=True))


def test_a_changed_time_ends_a_search_at_the_next_candidate(settings, kernels):
    write_variant(kernels, "then_wrong", BAD["skips_the_biases"])
    write_variant(kernels, "fast", BAD["leaves_an_element"], bits="2, 4, 8")
    contract = kernels / "expert_down" / "contract.yaml"
    tamperer = Tamperer(Stage.CHECK, lambda: contract.write_text(contract.read_text() + "# mine\n"))
    with pytest.raises(CheckError, match="the contracts changed during the search"):
        search(settings, tamperer)
    assert len(load_rows(settings.run / "ledger.tsv")) == 1


def test_a_search_is_resumed_with_the_limits_that_it_began_with(settings, unmeasured):
    search(dataclasses.replace(settings, candidates=0))
    other = {**settings.judge, "factor": 9.0}
    with pytest.raises(UsageError, match="began with judge"):
        search(dataclasses.replace(settings, resume=True, judge=other))


def test_nothing_to_resume(settings):
    with pytest.raises(UsageError, match="no search to resume"):
        search(dataclasses.replace(settings, resume=True))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_run_folder_that_cannot_be_written(settings, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="cannot write there"):
            search(settings)
    finally:
        tmp_path.chmod(0o700)


def test_a_run_folder_below_a_file(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write there"):
        search(dataclasses.replace(settings, run=tmp_path / "file" / "run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": ("qmatvec", "softmax")}, "op must be among qmatvec"),
        ({"ops": ()}, "at least one op"),
        ({"target": "vulkan"}, "target must be cpu, metal or cuda, got 'vulkan'"),
        ({"minutes": 0.0}, "minutes must be more than 0"),
        ({"timeout_s": -1.0}, "timeout_s must be more than 0"),
        ({"min_gain": -0.1}, "min_gain must be 0 or more"),
        ({"judge": {**DEFAULT_JUDGE, "kl": 0.0}}, "judge.kl must be more than 0, got 0.0"),
        ({"candidates": -1}, "candidates must be 0 or more"),
    ],
)
def test_settings_out_of_range(settings, change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(settings, **change)
