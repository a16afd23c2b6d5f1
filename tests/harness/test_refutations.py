"""What lost before is shown where it matters, and is not proposed again without a word of what has changed."""

import pytest

from harness.candidate import Status
from harness.refutations import CONDITION, matching, repeats, turned_down
from tests.harness.rows import row


def names(found):
    return [refuted.name for refuted in found]


def test_only_what_matters_for_the_op_and_the_target_is_shown():
    on_metal, on_cpu = (names(matching("expert_down", target)) for target in ("metal", "cpu"))
    assert "c-lut" in on_metal and "c-lut" not in on_cpu
    assert "c-mmap" not in on_metal and "c-mmap" in names(matching("io", "cpu"))


def test_what_was_kept_or_void_refutes_nothing():
    assert "c-fma" not in names(matching("qmatvec", "metal"))
    assert not {"m5-previous-token", "c-void-529"} & {*names(matching("io", "metal"))}


def test_a_line_says_where_it_lost_by_how_much_and_why():
    (lut,) = (refuted for refuted in matching("qmatvec", "metal") if refuted.name == "c-lut")
    assert "M3 Max" in lut.line() and "4.10 tok/s" in lut.line() and "table costs" in lut.line()
    assert "\n" not in lut.line()


def test_the_run_adds_what_it_refuted_itself():
    rows = [
        row(id="kept", status=Status.KEPT),
        row(id="waits", status=Status.UNMEASURED),
        row(id="lost", status=Status.DISCARDED, reason="no gain"),
        row(id="bad", status=Status.WRONG, reason="y is 3 off", variant="wide"),
        row(id="other", status=Status.WRONG, op="expert_down"),
    ]
    found = [refuted for refuted in matching("qmatvec", "cpu", rows) if refuted.condition == "this run"]
    assert names(found) == ["lost", "bad"]
    assert found[1].line() == 'bad: wide {"ROWS": 4}: wider loads (this run): wrong; y is 3 off'


@pytest.mark.parametrize(
    ("idea", "op", "target", "name"),
    [
        ("A look-up table of 16 dequantised values in each group.", "qmatvec", "metal", "c-lut"),
        ("Uses LUTs", "expert_down", "metal", "c-lut"),
        ("wider loads: 128-bit loads of the weights", "qmatvec", "metal", "c-uint4"),
        ("Dequantize first, then multiply", "qmatvec", "metal", "m5-dequantise-first"),
        ("map the experts with mmap()", "io", "cpu", "c-mmap"),
        ("prefetch the experts of the previous token", "io", "cpu", "c-previous-token"),
        ("K=3 is enough", "quality", "cpu", "mlx-k3"),
    ],
)
def test_a_repetition_is_found_by_the_words_of_the_idea(idea, op, target, name):
    found = repeats(idea, op, target)
    assert found is not None and found.name == name


@pytest.mark.parametrize(
    ("idea", "op", "target"),
    [
        ("A look-up table of 16 values", "qmatvec", "cpu"),  # refuted on Metal alone
        ("A look-up table of 16 values", "gated_delta_step", "metal"),
        ("A SIMD group for each row, x staged in threadgroup memory", "qmatvec", "metal"),
        ("kernels with 30 rows", "quality", "cpu"),  # neither K nor 3
        ("", "qmatvec", "metal"),
    ],
)
def test_another_idea_repeats_nothing(idea, op, target):
    assert repeats(idea, op, target) is None


def test_a_repetition_is_turned_down_by_name_until_it_says_what_has_changed():
    idea = "a LUT in threadgroup memory"
    line = turned_down(idea, "qmatvec", "metal")
    assert line.startswith("repeats c-lut: ") and CONDITION in line and "\n" not in line
    assert turned_down(f"{idea}. {CONDITION}  ", "qmatvec", "metal")
    assert turned_down(f"{idea}. {CONDITION} 3-bit weights, whose decode is dearer", "qmatvec", "metal") == ""
    assert turned_down("rows share x", "qmatvec", "metal") == ""


@pytest.mark.parametrize(
    ("idea", "changes", "again"),
    [
        ("Wider loads, 8 at once", {}, True),
        ("4 loads at once: wider", {"status": Status.TOO_SLOW}, True),
        ("wider loads at once, and fewer", {}, False),
        ("wider loads, 8 at once", {"status": Status.WRONG}, False),  # it may have been written wrongly
        ("wider loads, 8 at once", {"status": Status.KEPT}, False),
        ("wider loads, 8 at once", {"op": "expert_down"}, False),
        (f"wider loads, 8 at once. {CONDITION} 2-bit weights", {}, False),
        ("", {"hypothesis": ""}, False),
    ],
)
def test_what_lost_in_this_run_is_repeated_by_the_same_words(idea, changes, again):
    lost = row(id="lost", **{"status": Status.DISCARDED, "hypothesis": "wider loads, 4 at once"} | changes)
    line = turned_down(idea, "qmatvec", "cpu", [lost])
    assert line.startswith("repeats lost: ") if again else line == ""
