"""The variants of a search: what a proposer adds is there for good, what is not sound leaves nothing behind."""

import shutil

import pytest

from baseline.errors import UsageError
from harness import targets
from harness.shelf import Shelf
from tests.harness.conftest import KERNELS

NEW = """/*---
op: qmatvec
target: cpu
launch: {threads: 2}
hypothesis: zeros are quickly written
---*/
for (long i = 0; i < m * N; ++i) y[i] = from_float<T>(0);
"""


@pytest.fixture
def kernels(tmp_path):
    (tmp_path / "qmatvec").mkdir()
    shutil.copy(KERNELS / "qmatvec" / "contract.yaml", tmp_path / "qmatvec")
    return tmp_path


@pytest.fixture
def shelf(kernels):
    return Shelf({"qmatvec": {}}, targets.here("cpu"), kernels)


def test_what_was_added_is_there_when_the_search_is_resumed(shelf, kernels):
    added = shelf.add("qmatvec", "zeros", NEW)
    again = Shelf({"qmatvec": {}}, targets.here("cpu"), kernels)
    assert shelf["qmatvec"]["zeros"] == added == again["qmatvec"]["zeros"] and added.path.read_text() == NEW


def test_a_taken_name_gets_a_number(shelf):
    assert [shelf.add("qmatvec", "zeros", NEW).name for _ in range(3)] == ["zeros", "zeros_2", "zeros_3"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("y[0] = 0;", "must start with a header"),
        (NEW.replace("qmatvec", "expert_down"), "the contract beside it is 'qmatvec'"),
        (NEW.replace("target: cpu", "target: metal"), "launch of a metal variant"),
        (NEW.replace("launch", "requires: [__NO_SUCH_CPU__]\nlaunch"), "this machine lacks one of __NO_SUCH_CPU__"),
    ],
)
def test_an_unsound_variant_leaves_nothing(shelf, kernels, text, wrong):
    with pytest.raises(UsageError, match=wrong):
        shelf.add("qmatvec", "unsound", text)
    assert not shelf["qmatvec"] and not [*(kernels / "qmatvec" / "cpu").iterdir()]


@pytest.mark.parametrize(("op", "name"), [("sort", "zeros"), ("qmatvec", "../zeros"), ("qmatvec", "")])
def test_a_name_leads_nowhere_else(shelf, op, name):
    with pytest.raises(UsageError):
        shelf.add(op, name, NEW)
