"""Layouts in the judge and in whole searches: converted once, answered for on the candidate's model, timed apart."""

import dataclasses
import json
import os
import shutil
from collections import namedtuple

import pytest

from baseline import relayout as conversion
from baseline.checkpoint import fingerprint
from baseline.errors import CheckError, UsageError
from baseline.layout import load_layout
from baseline.manifest import load_manifest
from baseline.pack import verify
from harness import converted, decodes, loop, targets
from harness.applied import apply
from harness.candidate import LAYOUT, Candidate, EngineResult, Failure, Speedup, Stage, Status, identify
from harness.chosen import chosen, given, named_layout
from harness.config import load_config
from harness.confirm import Confirmed
from harness.conversation import Conversation
from harness.judge import Judge, Verdict
from harness.ledger import load_rows
from harness.loop import seed_candidate
from harness.models import PackedModel
from harness.progress import Silent
from harness.rerun import DECODE, rerun
from harness.settings import SearchSettings
from harness.shelf import usable_variants
from harness.winner import load_winner
from tests.kernel_call import KERNELS
from tests.models import TINY_MOE

PAGES = load_layout(KERNELS / "layouts" / "pages.yaml")


@pytest.fixture
def settings(tmp_path, packed, golden, kernels, cache, short):
    """A search of the layout alone, with a build cache of its own that has the compiled kernels of all tests."""
    build = tmp_path / "build"
    shutil.copytree(cache, build, ignore=shutil.ignore_patterns(converted.MODELS, "prepare-*", "building-*"))
    (kernels / "layouts").mkdir()
    shutil.copy(KERNELS / "layouts" / "pages.yaml", kernels / "layouts")
    return SearchSettings(tmp_path / "run", packed, kernels, build, golden, ops=(LAYOUT,), timeout_s=60.0, candidates=1)


@pytest.fixture
def judge(settings, tmp_path):
    target = targets.here("cpu")
    judge = Judge(settings, target, usable_variants(settings, target), Silent(), tmp_path)
    (tmp_path / "home").mkdir()
    return judge


@pytest.fixture
def seed(judge):
    return seed_candidate(judge.variants, judge.settings.io, judge.model.layout)


@pytest.fixture
def candidate(judge, seed):
    configuration = seed.configuration.with_layout(PAGES)
    identity = identify(configuration, judge.variants)
    return Candidate(identity, seed.id, "hand", PAGES.summary, configuration, LAYOUT)


def test_a_layout_goes_straight_to_the_engine_each_arm_with_its_model(judge, seed, candidate, tmp_path, monkeypatch):
    jobs = []

    class Seen(Conversation):
        def __init__(self, job, who, folder, timeout_s, native):
            jobs.append((who, {*job["arms"]}, load_manifest(tmp_path / job["packed"]).layout.name, "questions" in job))
            super().__init__(job, who, folder, timeout_s, native=native)

    monkeypatch.setattr(decodes, "Conversation", Seen)
    verdict = judge.evaluate(candidate, seed, tmp_path / "home")
    assert verdict.stage is Stage.ENGINE and verdict.checked is None and verdict.benched is None
    assert verdict.built.failure is None and verdict.engine.right and verdict.engine.apart
    assert verdict.engine.speedup is not None and verdict.engine.cache_use.candidate.read_bytes > 0
    assert jobs == [
        (("champion", "candidate"), {"champion", "candidate"}, "whole_expert", False),  # the A/A run
        (("candidate",), {"candidate"}, "pages", True),
        (("champion",), {"champion"}, "whole_expert", False),
        (("candidate",), {"candidate"}, "pages", False),
    ]


def test_each_layout_is_converted_once_for_all_searches(judge, candidate, settings, monkeypatch):
    folder = judge.model.folder(PAGES)
    assert folder.is_relative_to(settings.cache) and fingerprint(TINY_MOE) in folder.name
    verify(folder, TINY_MOE)

    def never(*_):
        raise AssertionError("nothing is to be converted")

    monkeypatch.setattr(conversion, "rearrange", never)
    assert judge.model.folder(PAGES) == folder
    assert converted.Converted(settings.packed, settings.cache).folder(PAGES) == folder
    own = dataclasses.replace(judge.model.layout, name="mine")
    assert judge.model.folder(own) == judge.model.folder(None) == settings.packed


def test_too_little_disk_is_the_candidates_failure(judge, seed, candidate, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("baseline.durable.shutil.disk_usage", lambda folder: usage(10, 9, 1_000_000))
    verdict = judge.evaluate(candidate, seed, tmp_path / "home")
    assert (verdict.status, verdict.stage) == (Status.FAILED_BUILD, Stage.BUILD)
    assert "the model was not converted" in verdict.failure.reason and "GB are available" in verdict.failure.reason


def test_a_damaged_model_is_nobodys_failure(judge, seed, candidate, settings, tmp_path):
    own = shutil.copytree(settings.packed, tmp_path / "damaged")
    with (own / "experts" / "layer_02.bin").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff" * 8)
    judge.model = converted.Converted(own, settings.cache)
    with pytest.raises(CheckError, match=r"layer 2 \(.*\), expert 0 is corrupt"):
        judge.evaluate(candidate, seed, tmp_path / "home")


def test_a_conversion_that_drops_bytes_answers_otherwise(judge, seed, candidate, tmp_path, monkeypatch):
    """The golden answers are asked of the candidate's own model."""

    def drop(record, segments, to, places):
        move(record, segments, to, places)
        to[len(to) // 2 :] = bytes(len(to) - len(to) // 2)

    move = conversion._move
    monkeypatch.setattr(conversion, "_move", drop)
    verdict = judge.evaluate(candidate, seed, tmp_path / "home")
    assert (verdict.status, verdict.stage) == (Status.WRONG, Stage.ENGINE)
    assert verdict.failure.reason.startswith("golden: ")


def test_a_converted_file_that_changes_stops_the_search(judge, seed, candidate, tmp_path):
    path = judge.model.folder(PAGES) / "experts" / "layer_05.bin"
    os.utime(path, (0, 0))
    with pytest.raises(CheckError, match=r"layer_05\.bin changed during the search"):
        judge.evaluate(candidate, seed, tmp_path / "home")


def test_where_two_engines_do_not_fit_it_waits(judge, seed, candidate, tmp_path, monkeypatch):
    monkeypatch.setattr(decodes, "memory_bytes", lambda: 1 << 20)
    verdict = judge.evaluate(candidate, seed, tmp_path / "home")
    assert verdict.status is Status.UNMEASURED and "where memory holds two engines" in verdict.failure.reason
    assert verdict.engine.right


def test_a_layout_that_won_is_recorded_verified_applied_and_used(settings, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("harness.judge.decide", lambda *measured: None)  # what is right is kept
    loop.search(settings)
    _, row = load_rows(settings.run / "ledger.tsv")
    assert (row.op, row.variant, row.status) == (LAYOUT, "pages", Status.KEPT) and row.speedup == row.engine_speedup
    record = settings.run / "candidates" / row.id / "candidate.json"
    assert json.loads(record.read_text())["configuration"]["layout"] == PAGES.to_json()
    winner = load_winner(settings.run)
    assert winner.champion.configuration.layout == PAGES and winner.seed.configuration.layout.name == "whole_expert"
    found = rerun(winner, dataclasses.replace(settings, ops=("qmatvec",)), Silent())
    assert found.reproduced and DECODE in found.again

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    model = PackedModel(settings.packed, fingerprint(TINY_MOE), bundled=True)
    said = []
    config = load_config([f"configuration={record}"])
    missing = r"is for the layout pages, .* is in whole_expert; convert it first: "
    with pytest.raises(UsageError, match=missing) as raised:
        given(config).folder(model, said.append)
    command = str(raised.value).partition("nightforge pack ")[2].split()
    packed, dst, option, name = command
    assert option == "--layout" and named_layout(name) == PAGES
    conversion.relayout(tmp_path / packed, tmp_path / dst, named_layout(name))
    assert given(config).folder(model, said.append) == tmp_path / dst and "in the layout pages" in said[0]

    monkeypatch.setattr("harness.applied.data_folder", lambda name: settings.kernels)
    with pytest.raises(UsageError, match="its champion was refuted, so it is not applied: decode "):
        apply(winner)  # three blocks show no gain, and a layout has to
    gain = dataclasses.replace(winner.confirmed, engine=Speedup(1.5, 1.4, 1.6))
    made = apply(dataclasses.replace(winner, confirmed=gain))
    use = chosen(load_config([]), given(load_config([])), model.fingerprint, said.append)
    assert use.layout == PAGES and use.folder(model, said.append) == tmp_path / dst
    assert use.record == made.folder / "candidate.json"
    there = PackedModel(tmp_path / dst, model.fingerprint, bundled=True)
    assert use.folder(there, said.append) == tmp_path / dst


@pytest.fixture
def unjudged(monkeypatch):
    """Searches in which every candidate loses at once."""
    failure = Failure(Status.DISCARDED, "no gain")
    lost = EngineResult(True, True, (1.0,), (1.0,), Speedup(1.0, 0.9, 1.1), 0.0, failure=failure)
    for part in ("measure_seed", "open", "check_engine"):
        monkeypatch.setattr(Judge, part, lambda *_: None)
    monkeypatch.setattr(Judge, "evaluate", lambda *_: Verdict(Stage.ENGINE, engine=lost, failure=failure))
    monkeypatch.setattr(loop, "confirm", lambda *_: Confirmed({}, Speedup(1.0, 1.0, 1.0), 1.0, 1.0, 0.0))


def test_a_search_of_layouts_is_resumed_with_what_it_wrote(settings, unjudged):
    settings = dataclasses.replace(settings, variants="plain", candidates=3)
    loop.search(settings)
    first = load_rows(settings.run / "ledger.tsv")[1:]
    written = {path.stem for path in (settings.run / "kernels" / "layouts").glob("*.yaml")}
    assert len(first) == 3 and {row.variant for row in first} <= written
    loop.search(dataclasses.replace(settings, resume=True))
    rows = load_rows(settings.run / "ledger.tsv")[1:]
    assert len({row.tunables for row in rows}) == len(rows) == 6 and {row.op for row in rows} == {LAYOUT}


def test_a_search_is_not_resumed_with_the_model_in_another_layout(settings, unjudged, tmp_path):
    loop.search(dataclasses.replace(settings, candidates=0))
    conversion.relayout(settings.packed, tmp_path / "pages", PAGES)
    with pytest.raises(UsageError, match="the model's layout have changed since this search began"):
        loop.search(dataclasses.replace(settings, packed=tmp_path / "pages", resume=True))
