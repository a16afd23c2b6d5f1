"""The experiments of others: the file is sound, and a damaged one is refused by the line."""

import io
import re

import pytest

from baseline.errors import CheckError
from baseline.prior import NAMES, PATH, Outcome, prior, read

GOOD = ("one", "M9", "an idea", "io", "any", "a condition", "1.0 tok/s", "discarded", "", "idea")


def table(*rows: tuple[str, ...]) -> io.StringIO:
    return io.StringIO("".join("\t".join(row) + "\n" for row in (NAMES, *rows)))


def by_id():
    return {experiment.id: experiment for experiment in prior()}


def test_every_line_of_the_file_is_an_experiment():
    assert len(prior()) == len(PATH.read_text().splitlines()) - 1 > 80


def test_what_was_logged_with_a_figure_has_one():
    without = [e.id for e in prior() if not re.search(r"\d", e.effect)]
    assert without == ["c-k3"]  # "collapse" is all that was logged


def test_the_same_idea_may_have_lost_on_one_machine_and_won_on_another():
    lost, won = by_id()["c-previous-token"], by_id()["m5-previous-token"]
    assert lost.idea == won.idea
    assert (lost.verdict, won.verdict) == (Outcome.DISCARDED, Outcome.KEPT)


def test_a_void_figure_refutes_nothing():
    assert not by_id()["c-void-529"].verdict.refuted
    assert by_id()["c-2bit"].verdict.refuted  # kept at first


@pytest.mark.parametrize(
    ("column", "cell", "complaint"),
    [
        ("verdict", "lost", "'lost' is not a valid Outcome"),
        ("area", "io disks", "area is 'disks'"),
        ("target", "gpu", "target is 'gpu'"),
        ("idea", "", "idea is empty"),
        ("tags", "", "no tags by which it could be known again"),
    ],
)
def test_a_damaged_line_is_named(column, cell, complaint):
    bad = tuple(cell if name == column else given for name, given in zip(NAMES, GOOD, strict=True))
    with pytest.raises(CheckError, match=f"line 3: .*{complaint}"):
        read(table(GOOD, bad))


def test_a_line_that_was_cut_is_named():
    with pytest.raises(CheckError, match="line 2: it has not 10 cells"):
        read(table(GOOD[:5]))


def test_an_id_is_used_once():
    with pytest.raises(CheckError, match="line 3: a second one"):
        read(table(GOOD, GOOD))


def test_other_columns_are_refused():
    with pytest.raises(CheckError, match="the columns are"):
        read(io.StringIO("id\tidea\n"))
