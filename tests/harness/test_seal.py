"""A file that changes during a search is what ends it, whatever else fails because of that."""

import dataclasses
import os
import shutil

import pytest

import baseline.reference
from baseline.errors import CheckError
from harness.candidate import Stage
from harness.judge import Judge
from harness.loop import search
from harness.progress import Silent
from harness.seal import Seal
from harness.settings import SearchSettings
from tests.harness.tampering import unnoticed

LAYER = "experts/layer_03.bin"
CHANGES = {
    "a shortened layer": (LAYER, lambda path: os.truncate(path, 4096)),
    "a layer that is gone": (LAYER, lambda path: path.unlink()),
    "another manifest": ("manifest.json", lambda path: path.write_text("{}")),
}


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels):
    mine = shutil.copytree(packed, tmp_path / "packed")
    return SearchSettings(tmp_path / "run", mine, kernels, cache, golden, ops=("qmatvec",), candidates=0)


class Tamperer(Silent):
    """Changes a file when the seed comes to the engine."""

    def __init__(self, change):
        self._change = change

    def on_stage(self, candidate, stage):
        if stage is Stage.ENGINE:
            self._change()


@pytest.fixture
def begun(settings, monkeypatch):
    """A search whose seed goes to the engine at once, where a file is changed."""
    monkeypatch.setattr(Judge, "measure_seed", lambda *_: None)
    monkeypatch.setattr(Judge, "open", lambda *_: None)
    return lambda change: search(settings, Tamperer(change))


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_of_the_model_is_named(name, settings, begun):
    file, change = CHANGES[name]
    with pytest.raises(CheckError, match=rf"{settings.packed / file} changed during the search: ") as error:
        begun(lambda: change(settings.packed / file))
    assert "\n" not in str(error.value)


def test_a_contract_that_is_no_yaml_any_more(settings, begun):
    contract = settings.kernels / "qmatvec" / "contract.yaml"
    with pytest.raises(CheckError, match="the contracts changed during the search: "):
        begun(lambda: contract.write_text("op: ["))


@pytest.mark.parametrize("name", ["golden record", "contracts", "oracle"])
def test_a_byte_of_what_judges_is_noticed_whatever_the_files_time_says(name, settings, golden, tmp_path, monkeypatch):
    oracle = shutil.copy(baseline.reference.__file__, tmp_path)
    monkeypatch.setattr(baseline.reference, "__file__", oracle)
    settings = dataclasses.replace(settings, golden=shutil.copytree(golden, tmp_path / "golden"))
    paths = {
        "golden record": settings.golden / "golden.safetensors",
        "contracts": settings.kernels / "qmatvec" / "contract.yaml",
        "oracle": tmp_path / "reference.py",
    }
    seal = Seal(settings)
    unnoticed(paths[name])
    seal.check(thoroughly=False)
    with pytest.raises(CheckError, match=f"the {name} changed during the search"):
        seal.check(thoroughly=True)


def test_what_fails_by_itself_is_said_as_it_is(settings):
    with pytest.raises(RuntimeError, match="mine"), Seal(settings).speaks_first():
        raise RuntimeError("mine")


def test_a_layer_that_was_written_again_is_named(settings):
    seal, layer = Seal(settings), settings.packed / LAYER
    seal.check(thoroughly=True)
    os.utime(layer, ns=(0, layer.stat().st_mtime_ns + 1))
    with pytest.raises(CheckError, match=r"layer_03\.bin changed during the search: what it found is in "):
        seal.check(thoroughly=False)
