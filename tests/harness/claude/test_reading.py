"""What the model may read of a search: what the judge left behind, and nothing beside it."""

import json
import math
from dataclasses import asdict

import pytest

from harness.candidate import Benched, Built, Checked, EngineResult, Failure, Speedup, Stage, Status
from harness.judge import Verdict
from harness.ledger import Ledger
from harness.propose.claude.reading import LONGEST, Reading, Unreadable, cut
from harness.propose.claude.tools import ReadBuildErrors, ReadLedger, ReadSanitizer, ReadTiming, ReadVariant
from tests.harness.rows import row

FAST, SLOW, BROKEN = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
SPEEDUP = Speedup(1.5, 1.4, 1.6)
UNSAFE = Checked(True, False, {"small: y": 3.5}, 0.1, Failure(Status.UNSAFE, "race on tile"), ("body:4: race on tile",))
BENCHED = Benched(True, (3e-6, 4e-6, 3e-6), (2e-6, 2e-6, 9e-6), SPEEDUP, 1.0)
ENGINE = EngineResult(True, True, (100.0, 90.0), (120.0, 110.0), SPEEDUP, 2.0)


@pytest.fixture
def reading(place):
    """A search that has judged three candidates."""
    broken = Failure(Status.FAILED_BUILD, "no")
    verdicts = {
        FAST: Verdict(Stage.ENGINE, Built(1.0), Checked(True, True, {}, 0.1), BENCHED, ENGINE),
        SLOW: Verdict(Stage.CHECK, Built(1.0), UNSAFE, failure=UNSAFE.failure),
        BROKEN: Verdict(Stage.BUILD, Built(1.0, broken, "body:1: no"), failure=broken),
    }
    with Ledger(place.run / "ledger.tsv") as ledger:
        for identity, verdict in verdicts.items():
            folder = place.run / "candidates" / identity
            folder.mkdir(parents=True)
            (folder / "samples.json").write_text(json.dumps(asdict(verdict), default=str))
            (folder / "build.log").write_text(verdict.built.log)
            ledger.append(row(id=identity, status=verdict.status, stage=verdict.stage, reason="because"))
        ledger.append(row(id="dddddddddddd", op="io", status=Status.DISCARDED, speedup=math.nan))
    return Reading(place.run, place.shelf)


def test_a_variant_is_read_as_it_is(reading, place):
    assert reading.answer(ReadVariant(op="qmatvec", name="plain")) == place.shelf["qmatvec"]["plain"].path.read_text()


def test_the_compilers_words_are_read(reading):
    assert reading.answer(ReadBuildErrors(candidate=BROKEN)) == "body:1: no"
    assert reading.answer(ReadBuildErrors(candidate=FAST)) == "the compiler said nothing"


def test_timing_has_stages_and_medians_of_both_arms(reading):
    told = reading.answer(ReadTiming(candidate=FAST))
    assert "launch, microseconds: candidate 2.00, champion 3.00 (medians of 3)" in told
    assert "decode, tokens/s: candidate 115.00, champion 95.00 (medians of 2)" in told
    assert "build_s: 1.00" in told and "bench_s: 2.00" in told
    assert "launch" not in reading.answer(ReadTiming(candidate=SLOW))


def test_the_sanitizers_report_and_the_errors_are_read(reading):
    told = reading.answer(ReadSanitizer(candidate=SLOW))
    assert "body:4: race on tile" in told and "small: y: error 3.5" in told
    assert reading.answer(ReadSanitizer(candidate=BROKEN)) == "it was not checked"
    assert reading.answer(ReadSanitizer(candidate=FAST)) == "nothing wrong"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"op": "", "status": "", "last": 9}, [FAST, SLOW, BROKEN, "dddddddddddd"]),
        ({"op": "", "status": "", "last": 2}, [BROKEN, "dddddddddddd"]),
        ({"op": "io", "status": "", "last": 9}, ["dddddddddddd"]),
        ({"op": "qmatvec", "status": "unsafe", "last": 9}, [SLOW]),
        ({"op": "", "status": "", "last": 0}, []),
        ({"op": "", "status": "", "last": -1}, []),
    ],
)
def test_the_ledger_is_filtered(reading, asked, found):
    told = reading.answer(ReadLedger(**asked))
    assert [line.split()[0] for line in told.splitlines() if line != "no such row"] == found


def test_a_row_says_what_was_measured_and_what_was_not(reading):
    kept, discarded = (reading.rows(op, status, 1) for op, status in (("", "kept"), ("io", "")))
    assert "kept at engine: because | 2.000x (1.900 to 2.100), engine 1.100x | wider loads" in kept
    assert "discarded at engine | not timed" in discarded


@pytest.mark.parametrize(
    "asked",
    [
        ReadVariant(op="qmatvec", name="../contract"),
        ReadVariant(op="..", name="plain"),
        ReadBuildErrors(candidate="../.."),
        ReadBuildErrors(candidate="."),
        ReadBuildErrors(candidate="eeeeeeeeeeee"),
        ReadSanitizer(candidate="/etc"),
        ReadTiming(candidate="../candidates/" + FAST),
        ReadLedger(op="", status="great", last=1),
    ],
)
def test_what_is_not_there_is_not_read(reading, asked):
    with pytest.raises(Unreadable):
        reading.answer(asked)


def test_a_long_answer_loses_its_middle():
    told = cut("a" * LONGEST + "b" * LONGEST)
    assert told.startswith("aaa") and told.endswith("bbb") and f"{LONGEST} characters left out" in told
    assert cut("short") == "short"
