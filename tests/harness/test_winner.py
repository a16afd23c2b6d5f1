"""A winner is known by its record alone: it is judged again, or made the default, or refused for a reason."""

import dataclasses
import json
import shutil

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from baseline.errors import CheckError, UsageError
from harness import applied
from harness.candidate import Speedup
from harness.confirm import Confirmed
from harness.loop import search
from harness.progress import Silent
from harness.rerun import DECODE, compared, rerun
from harness.settings import SearchSettings
from harness.winner import load_winner
from tests.harness.conftest import KERNELS, cut_kernels
from tests.harness.short_runs import shorten
from tests.harness.variants import FAST, write_variant

CLEAR = (UsageError, CheckError)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, packed, golden, cache):
    """The settings of a search that kept one kernel and confirmed it, whose folder of kernels is gone."""
    root, patch = tmp_path_factory.mktemp("searched"), pytest.MonkeyPatch()
    kernels = cut_kernels(root / "kernels")
    write_variant(kernels, "fast", FAST, bits="2, 4, 8")
    settings = SearchSettings(
        root / "run", packed, kernels, cache, golden, ops=("qmatvec",), timeout_s=20.0, candidates=1
    )
    shorten(patch.setattr)
    summary = search(settings)
    patch.undo()
    assert summary.kept == 1 and summary.confirmed is not None
    shutil.rmtree(kernels)
    return settings


@pytest.fixture
def run(searched, tmp_path):
    return shutil.copytree(searched.run, tmp_path / "copy")


@pytest.fixture
def again(searched, tmp_path, short):
    """Judges the winner of a run again, on this machine, which has its own contracts."""
    here = dataclasses.replace(searched, kernels=cut_kernels(tmp_path / "kernels"), run=tmp_path / "elsewhere")
    return lambda run, **other: rerun(load_winner(run), dataclasses.replace(here, **other), Silent())


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def champion(run):
    return json.loads((run / "summary.json").read_text())["champion"]


def test_a_winner_reproduces_from_its_record_alone(run, again):
    found = again(run)
    assert (
        found.reproduced and found.reason == "" and found.recorded.keys() == found.again.keys() == {"qmatvec", DECODE}
    )
    assert found.again["qmatvec"].low > 1.02 and found.again != found.recorded


@pytest.mark.parametrize("what", ["qmatvec", DECODE])
@pytest.mark.parametrize(
    ("then", "now", "reproduced"),
    [((1.5, 1.4), (1.3, 1.2), True), ((1.5, 1.4), (1.3, 1.01), False), ((1.05, 0.9), (0.8, 0.7), True)],
    ids=["less and still a gain", "no gain any more", "none was shown"],
)
def test_every_gain_that_was_shown_must_be_shown_again(what, then, now, reproduced, run):
    def confirmed(value, low):
        found = dict.fromkeys(("qmatvec", DECODE), Speedup(2.0, 1.9, 2.1)) | {what: Speedup(value, low, 2.0)}
        return Confirmed({"qmatvec": found["qmatvec"]}, found[DECODE], 1.0, 2.0, 0.0)

    found = compared(load_winner(run), confirmed(*then), confirmed(*now), 0.02)
    assert found.reproduced is reproduced
    assert found.reason == ("" if reproduced else f"no gain shown this time: {what}")


def test_a_winner_whose_source_was_edited_is_refused(run, again):
    source = run / "candidates" / champion(run) / "qmatvec.cpp"
    source.write_text(source.read_text() + "// faster\n")
    for use in (again, lambda run: applied.apply(load_winner(run))):
        with pytest.raises(CheckError, match=f"the recorded sources are not those of candidate {champion(run)}"):
            use(run)


def test_another_contract_is_named(run, again):
    contract = run / "kernels" / "expert_down" / "contract.yaml"
    contract.write_text(contract.read_text() + "# changed\n")
    with pytest.raises(CheckError, match="it was judged by contracts "):
        again(run)


def test_who_was_never_confirmed_is_neither_verified_nor_applied(run, again):
    (run / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"its champion was never confirmed; go on with: nightforge search --resume"):
        again(run)
    with pytest.raises(UsageError, match="its champion was never confirmed, so it is not applied"):
        applied.apply(load_winner(run))


def test_the_confirmation_of_another_champion_is_none(run):
    edit(run / "summary.json", lambda summary: summary.update(champion="0" * 12))
    assert load_winner(run).confirmed is None


def test_what_is_applied_is_the_default_of_its_model_alone(run, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(applied, "cache_folder", lambda: tmp_path / "mine")
    made, winner = applied.apply(load_winner(run)), load_winner(run)
    found = applied.applied("cpu", winner.asked.contents["model"])
    assert found == made and found.configuration == winner.champion.configuration
    assert (
        applied.applied("cpu", "another") is None and applied.applied("metal", winner.asked.contents["model"]) is None
    )
    monkeypatch.setattr(applied, "data_folder", lambda name: KERNELS)
    with pytest.raises(UsageError, match="of another contract of "):  # those of this test are cut
        found.choices()
    monkeypatch.setattr(applied, "data_folder", lambda name: found.kernels)
    assert found.choices()["qmatvec"].variant.name == "fast"


def test_a_variant_s_name_leads_nowhere(run):
    record = run / "candidates" / champion(run) / "candidate.json"
    edit(record, lambda it: it["configuration"]["kernels"]["qmatvec"].update(variant="../../away"))
    with pytest.raises(CheckError, match=r"'\.\./\.\./away' is no variant's name"):
        applied.apply(load_winner(run))


PARTS = ("settings.json", "summary.json", "candidate.json", "ledger.tsv", "qmatvec.cpp", "contract.yaml")
OTHER = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)


def part(run, name):
    if name in ("candidate.json", "qmatvec.cpp"):
        return run / "candidates" / champion(run) / name
    return run / "kernels" / "qmatvec" / name if name == "contract.yaml" else run / name


@pytest.mark.parametrize("name", PARTS)
def test_a_record_that_is_not_whole_is_one_clear_line(name, run, tmp_path, monkeypatch):
    monkeypatch.setattr(applied, "cache_folder", lambda: tmp_path / "mine")
    part(run, name).unlink()
    with pytest.raises(CLEAR) as raised:
        applied.apply(load_winner(run))
    assert "\n" not in str(raised.value) and str(run) in str(raised.value)


@hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, database=None
)
@given(data=st.data(), name=st.sampled_from([name for name in PARTS if name.endswith(".json")]), other=OTHER)
def test_a_record_that_says_something_else_is_one_clear_line_or_no_matter(
    data, name, other, searched, tmp_path_factory
):
    run = shutil.copytree(searched.run, tmp_path_factory.mktemp("edited") / "run")
    place = part(run, name)
    record = json.loads(place.read_text())
    at = record
    while isinstance(at, dict) and at:
        key = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[key], dict) or not at[key] or data.draw(st.booleans()):
            at[key] = other
            break
        at = at[key]
    place.write_text(json.dumps(record))
    try:
        winner = load_winner(run)
        winner.write_kernels(run.with_name("kernels"))
    except CLEAR as error:
        assert str(error)
    else:
        assert winner.confirmed is None or isinstance(winner.confirmed, Confirmed)
    finally:
        shutil.rmtree(run.parent)
