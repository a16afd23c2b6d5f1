"""Which texts may become candidates, on the real Metal kernels."""

import shutil

import pytest

from baseline.errors import UsageError
from harness import targets
from harness.candidate import Status
from harness.propose.admission import admitted
from harness.refutations import CONDITION
from harness.shelf import Shelf
from tests.harness.propose.worlds import KERNELS
from tests.harness.rows import row

LUT = (KERNELS / "qmatvec" / "metal" / "lut.metal").read_text()
WIDE = (KERNELS / "qmatvec" / "metal" / "wide.metal").read_text()


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    home = tmp_path / "kernels" / "qmatvec"
    (home / "metal").mkdir(parents=True)
    shutil.copy(KERNELS / "qmatvec" / "contract.yaml", home)
    shutil.copy(KERNELS / "qmatvec" / "metal" / "plain.metal", home / "metal")
    return Shelf({"qmatvec": {}}, targets.here("metal"), tmp_path / "kernels")


def test_a_refuted_idea_is_admitted_once_it_says_what_has_changed(shelf):
    with pytest.raises(UsageError, match=r"^repeats c-lut: "):
        admitted("qmatvec", "lut", LUT, shelf, [])
    assert list(shelf["qmatvec"]) == ["plain"]
    assert LUT.count("\n---*/") == 1
    changed = LUT.replace("\n---*/", f"\n  {CONDITION} weights of 2 bits\n---*/")
    assert admitted("qmatvec", "lut", changed, shelf, []).name == "lut"


def test_what_is_on_the_shelf_is_not_put_there_again(shelf):
    text = shelf["qmatvec"]["plain"].path.read_text()
    assert admitted("qmatvec", "another", text, shelf, []) is shelf["qmatvec"]["plain"]


def test_a_twin_is_refused_unless_the_other_failed(shelf):
    text = WIDE.replace("hypothesis: >", f"hypothesis: >\n  {CONDITION} this test.")
    admitted("qmatvec", "wide", text, shelf, [])
    with pytest.raises(UsageError, match=r"^same as wide but for names"):
        admitted("qmatvec", "renamed", text.replace("total", "sum_of_all"), shelf, [])
    failed = row(op="qmatvec", variant="wide", status=Status.CRASHED)
    assert admitted("qmatvec", "renamed", text.replace("total", "sum_of_all"), shelf, [failed]).name == "renamed"


def test_an_unsound_variant_leaves_nothing_behind(shelf):
    with pytest.raises(UsageError, match="launch"):
        admitted("qmatvec", "bad", WIDE.replace("launch:", "lunch:"), shelf, [])
    assert [path.name for path in shelf["qmatvec"]["plain"].path.parent.iterdir()] == ["plain.metal"]
