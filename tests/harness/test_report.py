"""The chart and the table of a search's record."""

import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from baseline.errors import UsageError
from harness.candidate import Speedup, Status
from harness.confirm import Summary
from harness.costs import Costs
from harness.display import print_summary
from harness.events import Events
from harness.ledger import HEADER, Row, encode
from harness.model_use import model_use
from harness.points import points
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage
from harness.report import kept_table, write_report
from tests.harness.rows import row

NAN = math.nan
ROWS = [
    row(op="", speedup=1.0, status=Status.KEPT),
    row(op="expert_down", variant="vector_loads", speedup=2.0),
    row(op="expert_down", speedup=0.9, status=Status.TOO_SLOW),
    row(op="qmatvec", speedup=3.0, hypothesis="a | b"),
    row(op="expert_down", speedup=NAN, status=Status.CRASHED),
    row(op="expert_down", variant="blocked", speedup=1.5),
    row(op="io", variant="", speedup=1.01, status=Status.DISCARDED),
]


def write(folder: Path, rows: list[Row]) -> Path:
    (folder / "ledger.tsv").write_bytes(HEADER + b"".join(map(encode, rows)))
    return folder


def test_gains_of_an_op_multiply_and_ops_do_not_mix() -> None:
    made = points(ROWS)
    assert [p.number for p in made] == [1, 2, 3, 4, 5, 6]
    assert [p.speedup for p in made if p.number != 4] == pytest.approx([2.0, 1.8, 3.0, 3.0, 1.01])
    assert math.isnan(made[3].speedup)
    assert [p.best for p in made] == pytest.approx([2.0, 2.0, 3.0, 2.0, 3.0, 1.0])


def test_the_table_holds_what_was_kept_and_nothing_else() -> None:
    lines = kept_table(points(ROWS)).splitlines()
    assert len(lines) == 2 + 3
    assert lines[4].startswith("| 5 | expert_down | blocked") and "3.00x" in lines[4]
    assert lines[3].endswith("| a \\| b |")


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["a search", "a seed alone"])
def test_the_chart_is_a_picture_of_readable_size(tmp_path: Path, rows: list[Row]) -> None:
    chart, table = write_report(write(tmp_path, rows))
    content = chart.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (1350, 750)
    assert 10_000 < len(content) < 500_000
    assert table.read_text().startswith("| # | op |")


def test_the_chart_has_no_headline_but_what_was_confirmed(tmp_path, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
    write_report(write(tmp_path, ROWS), confirmed={"expert_down": Speedup(1.25, 1.1, 1.4)})
    ((labels,),) = ([[text.get_text() for text in legend.texts] for legend in one.legends] for one in figures)
    gained = {p.row.op for p in points(ROWS) if p.best != 1}
    assert "expert_down 1.2x" in labels and {*labels} >= gained - {"expert_down"}


def test_no_chart_where_nothing_was_measured(tmp_path: Path) -> None:
    waits = row(op="qmatvec", speedup=NAN, status=Status.UNMEASURED)
    chart, table = write_report(write(tmp_path, [ROWS[0], waits, ROWS[4]]))
    assert chart is None and "not measured yet: 1." in table.read_text()
    chart, table = write_report(write(tmp_path, [*ROWS, row(op="io", status=Status.UNMEASURED, speedup=NAN)]))
    assert chart is not None and "not measured yet: 1." in table.read_text()


def test_a_candidate_measured_later_comes_once() -> None:
    waits = row(op="qmatvec", speedup=NAN, status=Status.UNMEASURED)
    (point,) = points([ROWS[0], waits, row(op="qmatvec", speedup=2.0)])
    assert (point.number, point.speedup) == (2, 2.0)


ASKED = row(op="qmatvec", model="a model", input_tokens=1000, cached_tokens=900, output_tokens=50, usd=0.5)
CUT = Event(Kind.CUT, "lost", Usage(output=25), 0.25, "a model")
TOOK = "1,000 tokens in (90 % from the cache), 75 out; $0.75"


@pytest.mark.parametrize(("speedup", "worth"), [(None, ""), (1.5, ", $0.0150 for each confirmed 1 %")])
def test_the_table_says_what_a_model_took_and_leaves_the_record_as_it_was(tmp_path: Path, speedup, worth: str) -> None:
    events = Events(tmp_path / "events.jsonl")
    events.record(CUT)
    torn = events.path.read_bytes() + b'{"kind": "c'  # somebody writes it right now
    events.path.write_bytes(torn)
    _, table = write_report(write(tmp_path, [*ROWS, ASKED]), speedup)
    assert table.read_text().endswith(f"\n\nTaken of a language model: {TOOK}{worth}.\n")
    assert events.path.read_bytes() == torn


def test_without_a_model_nothing_is_said_of_one(tmp_path: Path) -> None:
    _, table = write_report(write(tmp_path, ROWS), 2.0)
    assert "model" not in table.read_text()


@pytest.mark.parametrize("rows", [[*ROWS, ASKED], ROWS], ids=["a model", "none"])
def test_the_summary_says_what_a_model_took(capfd: pytest.CaptureFixture[str], rows: list[Row]) -> None:
    used = model_use(rows, [CUT] if ASKED in rows else [])
    found = Summary(Path("run"), 7, 4, 0, "0123456789ab", 1.5, 1.4, None, False, "", 60.0, Costs(), (), used)
    print_summary(found, None)
    said = f"language model: {TOOK}, $0.0150 for each confirmed 1 %\n" in capfd.readouterr().err
    assert said == (ASKED in rows)
    record = found.to_json()
    assert (record["cost_usd"], record["usd_per_percent"]) == ((0.75, pytest.approx(0.015)) if said else (0.0, 0.0))
    assert record["language_model"]["cached_share"] == (0.9 if said else None)


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no search"):
        write_report(tmp_path)
