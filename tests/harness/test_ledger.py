import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.errors import CheckError, UsageError
from harness.candidate import Status
from harness.ledger import HEADER, Ledger, Row, champion, decode, encode, frame, latest, load_rows, unmeasured
from tests.harness.rows import ROW, row

nasty = st.text(st.one_of(st.sampled_from("\t\n\r\\tnr\u2028\x1c\x00"), st.characters(exclude_categories=["Cs"])))


@given(reason=nasty, hypothesis=nasty)
def test_any_text_survives(reason, hypothesis):
    original = row(reason=reason, hypothesis=hypothesis)
    line = encode(original)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode(line[:-1]) == original


def test_numbers_survive_exactly():
    back = decode(encode(row(speedup=0.1 + 0.2, speedup_low=math.nan, speedup_high=math.inf))[:-1])
    assert back.speedup == 0.1 + 0.2 and math.isnan(back.speedup_low) and back.speedup_high == math.inf


def test_rows_are_appended_and_read_back(tmp_path):
    path = tmp_path / "ledger.tsv"
    with Ledger(path) as ledger:
        ledger.append(ROW)
    with Ledger(path) as ledger:
        ledger.append(row(id="b", status=Status.DISCARDED))
        assert [r.id for r in ledger.rows] == [ROW.id, "b"]
    assert path.read_text().split("\n")[0].split("\t") == [f.name for f in fields(Row)]
    assert load_rows(path) == [ROW, row(id="b", status=Status.DISCARDED)]
    assert list(frame(path)["id"]) == [ROW.id, "b"]


def test_torn_at_every_byte(tmp_path):
    """Whatever a kill leaves of the last write, the rows before it are there and the next row is whole."""
    whole = HEADER + encode(ROW) + encode(row(id="cut", reason="ä"))
    kept = len(HEADER) + len(encode(ROW))
    for cut in range(len(whole)):
        path = tmp_path / "ledger.tsv"
        path.write_bytes(whole[:cut])
        expected = [] if cut < kept else [ROW]
        assert load_rows(path) == expected, cut
        with Ledger(path) as ledger:
            ledger.append(row(id="next"))
        assert load_rows(path) == [*expected, row(id="next")], cut


def test_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "ledger.tsv"
    path.write_bytes(HEADER + b"half a row\n" + encode(ROW))
    with pytest.raises(CheckError, match="line 2: damaged row"):
        load_rows(path)


@pytest.mark.parametrize("header", [b"a\tb\n", b"id,parent\n", b"\xff\n", b"\n"])
def test_another_file_is_no_ledger(header, tmp_path):
    path = tmp_path / "ledger.tsv"
    path.write_bytes(header)
    with pytest.raises(CheckError, match="line 1: not the header"):
        load_rows(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (HEADER.replace(b"\tusd\t", b"\tcost\tnode\t"), "has the columns cost, node and lacks the columns usd"),
        (HEADER.replace(b"\tusd\t", b"\t"), "lacks the columns usd"),
        (HEADER.replace(b"\tusd\t", b"\tusd\tnode\t"), "has the columns node"),
        (HEADER.replace(b"id\tparent", b"parent\tid"), "has its columns in another order"),
    ],
)
def test_a_ledger_of_another_version_says_which_columns_differ(header, said, tmp_path):
    path = tmp_path / "ledger.tsv"
    path.write_bytes(header + b"a row\n")
    with pytest.raises(CheckError) as raised:
        load_rows(path)
    assert str(raised.value) == f"{path} line 1: made by another version of nightforge (it {said})"


def test_one_search_a_ledger(tmp_path):
    with Ledger(tmp_path / "ledger.tsv"), pytest.raises(UsageError, match="another search is running"):
        Ledger(tmp_path / "ledger.tsv")
    Ledger(tmp_path / "ledger.tsv").close()


def test_champion_is_the_last_kept_row():
    rows = [row(id="a"), row(id="b"), row(id="c", status=Status.WRONG)]
    assert champion(rows) == rows[1]
    assert champion(rows[2:]) is None


def test_what_waits_is_what_no_row_has_timed():
    waiting = [row(id=i, status=Status.UNMEASURED, variant=v, speedup=math.nan) for i, v in (("a", "x"), ("b", "y"))]
    rows = [row(op=""), *waiting, row(id="c", variant="x", status=Status.TOO_SLOW)]  # another id: beside other kernels
    assert unmeasured(rows) == [waiting[1]]
    assert latest(rows) == [rows[0], waiting[1], rows[3]]
    assert unmeasured([*rows, row(variant="y", status=Status.CRASHED)]) == []
