"""A candidate's record as a configuration: its own kernels or none, whatever is in the folder of kernels."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from baseline.errors import CheckError, UsageError
from baseline.variant import Choice, parse_variant
from harness import commands, config
from harness.candidate import Candidate, Configuration, KernelSpec, candidate_id
from harness.recorded import recorded
from tests.harness.conftest import KERNELS
from tests.harness.variants import FAST, write_variant

IO = {"threads": 3}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of a candidate with a kernel that no folder of kernels has."""
    kernels = shutil.copytree(KERNELS, tmp_path / "kernels")
    source = write_variant(kernels, "written", FAST, bits="2, 4, 8")
    tunables = dict(Choice.defaults(parse_variant(source)).tunables)
    configuration = Configuration({"qmatvec": KernelSpec("written", tunables)}, IO)
    identity = candidate_id(configuration, {"qmatvec": source.read_text()})
    folder = tmp_path / "candidates" / identity
    folder.mkdir(parents=True)
    shutil.copyfile(source, folder / "qmatvec.cpp")
    candidate = Candidate(identity, "", "mutate", "", configuration, "qmatvec")
    (folder / "candidate.json").write_text(json.dumps(candidate.to_json()))
    shutil.rmtree(kernels)
    return folder / "candidate.json"


def test_a_kernel_that_a_search_wrote(record: Path) -> None:
    choices, configuration = recorded(record, "cpu", KERNELS)
    assert choices["qmatvec"].variant.path == record.with_name("qmatvec.cpp") and configuration.io == IO


def test_the_engine_runs_it(record: Path, packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    given = config.load_config([f"configuration={record}", f"model={packed}", "max_tokens=2"])
    assert commands.generate(Namespace(json=True), given).fields["phases"]["qmatvec"] > 0


def test_a_source_that_has_changed_is_refused(record: Path) -> None:
    source = record.with_name("qmatvec.cpp")
    source.write_text(source.read_text() + "\n")
    with pytest.raises(CheckError, match=f"not those of candidate {record.parent.name}"):
        recorded(record, "cpu", KERNELS)


@pytest.mark.parametrize("target", ["cpu", "metal"])
def test_a_source_that_is_missing_is_named(record: Path, target: str) -> None:
    if target == "cpu":
        record.with_name("qmatvec.cpp").unlink()
    with pytest.raises(UsageError, match=rf"target={target} .*qmatvec\.(cpp|metal)"):
        recorded(record, target, KERNELS)
