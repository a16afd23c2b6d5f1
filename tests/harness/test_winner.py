"""A winner is known by its record alone: it is judged again, or made the default, or refused for a reason."""

import dataclasses
import json
import re
import shutil
from statistics import median

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from baseline.errors import CheckError, UsageError
from harness import applied
from harness.candidate import Speedup
from harness.confirm import Confirmed
from harness.keep import LEAST_BLOCKS, log_ratios, speedup
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


def test_a_record_names_no_place_of_the_machine_that_made_it(run, tmp_path_factory):
    for scratch in [*run.rglob("scratch")]:  # nothing of it is needed afterwards
        shutil.rmtree(scratch)
    recorded = [path for path in run.rglob("*") if path.is_file()]
    assert {path.name for path in recorded} >= {*PARTS, "samples.json"}
    assert not [path for path in recorded if str(tmp_path_factory.getbasetemp()).encode() in path.read_bytes()]


def confirmed(**found):
    return Confirmed({"qmatvec": found["qmatvec"]}, found["decode"], 1.0, 2.0, 0.0)


AS_EVER = Speedup(2.0, 1.9, 2.1)


@pytest.mark.parametrize(("what", "name"), [("qmatvec", "qmatvec"), ("decode", DECODE)])
@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        (Speedup(1.5, 1.4, 1.6), Speedup(1.3, 1.2, 1.4), ""),
        (Speedup(1.5, 1.4, 1.6), Speedup(1.3, 1.01, 1.4), "no gain shown this time: {} is 1.300x [1.010, 1.400]"),
        (Speedup(3.0, 2.9, 3.2), Speedup(1.5, 1.4, 1.6), "{} was 3.000x [2.900, 3.200], and is 1.500x [1.400, 1.600]"),
        (Speedup(1.05, 0.9, 1.2), Speedup(1.0, 0.8, 1.1), ""),
        (Speedup(1.05, 0.9, 1.2), Speedup(0.5, 0.4, 0.6), "no gain shown this time: {} is 0.500x [0.400, 0.600]"),
    ],
    ids=["nearly as much", "no gain any more", "half of it", "none was shown", "a loss by now"],
)
def test_every_gain_that_was_shown_must_be_shown_again(what, name, then, now, reason, run):
    both = [confirmed(**{"qmatvec": AS_EVER, "decode": AS_EVER, what: found}) for found in (then, now)]
    found = compared(load_winner(run), *both, 0.02)
    assert found.reproduced is (not reason) and found.reason == reason.format(name)


def test_with_other_tools_a_gain_may_be_another(run):
    edit(run / "settings.json", lambda settings: settings["built_with"].update({"compiler version": "1.0"}))
    less = confirmed(qmatvec=Speedup(1.5, 1.4, 1.6), decode=AS_EVER)
    assert compared(load_winner(run), confirmed(qmatvec=AS_EVER, decode=AS_EVER), less, 0.02).reproduced


@pytest.mark.parametrize(
    ("found", "refuted"),
    [
        ({"qmatvec": AS_EVER, "decode": Speedup(1.0, 0.9, 1.1)}, ""),
        ({"qmatvec": Speedup(1.0, 0.9, 1.1), "decode": AS_EVER}, "qmatvec 1.000x [0.900, 1.100]"),
        ({"qmatvec": AS_EVER, "decode": Speedup(0.8, 0.7, 0.9)}, "decode 0.800x [0.700, 0.900]"),
    ],
)
def test_what_a_confirmation_refutes_is_not_applied(found, refuted, run, tmp_path, monkeypatch):
    monkeypatch.setattr(applied, "cache_folder", lambda: tmp_path / "mine")
    assert confirmed(**found).refuted == refuted
    winner = dataclasses.replace(load_winner(run), confirmed=confirmed(**found))
    if refuted:
        with pytest.raises(UsageError, match="its champion was refuted, so it is not applied: "):
            applied.apply(winner)
    else:
        assert applied.apply(winner)


def test_an_io_policy_must_make_decode_faster():
    unsure = Confirmed({}, Speedup(1.05, 0.98, 1.1), 1.0, 2.0, 0.0, decode_gains=True)
    assert unsure.refuted == "decode 1.050x [0.980, 1.100]"


@pytest.mark.parametrize("model", ["/../../victim", "", "79132c94", "../" + "0" * 29])
def test_a_model_s_name_leads_nowhere(model, run):
    edit(run / "settings.json", lambda settings: settings["contents"].update(model=model))
    with pytest.raises(CheckError, match="it does not say which model was searched on"):
        load_winner(run)


def test_an_op_s_name_leads_nowhere(run):
    record = run / "candidates" / champion(run) / "candidate.json"
    edit(record, lambda it: it["configuration"]["kernels"].update({"../../away": {"variant": "plain", "tunables": {}}}))
    with pytest.raises(CheckError, match=r"no op is called '\.\./\.\./away'"):
        load_winner(run)


def test_a_ledger_that_kept_nothing_has_no_winner(run):
    (run / "ledger.tsv").write_bytes((run / "ledger.tsv").read_bytes().replace(b"\tkept\t", b"\twrong\t"))
    with pytest.raises(UsageError, match="holds no winner"):
        load_winner(run)


def test_a_confirmation_of_other_ops_is_named(run):
    winner = load_winner(run)
    ops = {**winner.confirmed.ops, "expert_down": AS_EVER}
    winner = dataclasses.replace(winner, confirmed=dataclasses.replace(winner.confirmed, ops=ops))
    with pytest.raises(CheckError, match="it was confirmed with qmatvec, expert_down, decode"):
        compared(winner, winner.confirmed, confirmed(qmatvec=AS_EVER, decode=AS_EVER), 0.02)


def test_a_record_holds_the_samples_that_its_figures_are_made_of(run):
    winner = load_winner(run)
    found, samples = winner.confirmed, winner.confirmed.samples
    assert samples.champion == winner.champion.id and samples.launch_s.keys() == found.ops.keys() == {"qmatvec"}
    arms = samples.launch_s["qmatvec"]
    assert len(arms.seed) == len(arms.champion) >= 2 * LEAST_BLOCKS
    assert found.ops["qmatvec"].value == speedup(log_ratios(arms.seed, arms.champion)).value
    assert found.champion_tokens_per_s == median(samples.tokens_per_s.champion)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda it: it["ops"]["qmatvec"].update(value=99.0), "the value of qmatvec is 99, and "),
        (lambda it: it["ops"]["qmatvec"].update(low=1e-3 + it["ops"]["qmatvec"]["low"]), "the low of qmatvec is "),
        (lambda it: it["ops"].update(expert_down=it["ops"]["qmatvec"]), "the value of expert_down is "),
        (lambda it: it["ops"].clear(), "the value of qmatvec is nan, and "),
        (lambda it: it["engine"].update(value=3.0), "the value of decode is 3, and "),
        (lambda it: it.update(champion_tokens_per_s=1e6), "tokens/s is 1e+06, and "),
    ],
)
def test_figures_that_are_not_those_of_the_samples_are_refused(change, named, run):
    edit(run / "summary.json", lambda it: change(it["confirmed"]))
    with pytest.raises(CheckError, match=re.escape(f"{run}: its summary is not what was measured: {named}")):
        load_winner(run)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda it: it["launch_s"]["qmatvec"]["seed"].pop(), "ABBA needs an even, equal number of samples"),
        (lambda it: it["launch_s"]["qmatvec"]["seed"].append("1.0"), "Input should be a valid number"),
        (lambda it: it["tokens_per_s"]["champion"].append(0.0), "Input should be greater than 0"),
        (lambda it: it["tokens_per_s"].update(champion=[], seed=[]), "ABBA needs an even, equal number of samples"),
        (lambda it: it.update(champion="0" * 12), "the samples of another champion, '000000000000'"),
    ],
)
def test_samples_that_are_none_are_refused(change, named, run):
    edit(run / "confirmation.json", change)
    with pytest.raises(CheckError, match=re.escape(named)) as raised:
        load_winner(run)
    assert str(run / "confirmation.json") in str(raised.value)


def test_a_record_from_before_samples_were_kept_is_refused(run):
    (run / "confirmation.json").unlink()
    with pytest.raises(CheckError, match=r"confirmation\.json is missing: the raw samples that the figures "):
        load_winner(run)


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


PARTS = (
    "settings.json",
    "summary.json",
    "confirmation.json",
    "candidate.json",
    "ledger.tsv",
    "qmatvec.cpp",
    "contract.yaml",
)
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


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
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
        assert winner.confirmed is None or not winner.confirmed.differing(winner.confirmed.samples)
    finally:
        shutil.rmtree(run.parent)


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(arm=st.sampled_from(["seed", "champion"]), place=st.integers(0, 5), other=OTHER | st.floats(), op=st.booleans())
def test_a_sample_that_is_another_one_is_refused_or_makes_the_same_figures(
    arm, place, other, op, searched, tmp_path_factory
):
    run = shutil.copytree(searched.run, tmp_path_factory.mktemp("edited") / "run")
    edit(run / "confirmation.json", lambda it: _arms(it, op)[arm].__setitem__(place, other))
    try:
        found = load_winner(run).confirmed
    except CheckError as error:
        assert "\n" not in str(error) and str(run) in str(error)
    else:
        assert not found.differing(found.samples)
    finally:
        shutil.rmtree(run.parent)


def _arms(record, op):
    return record["launch_s"]["qmatvec"] if op else record["tokens_per_s"]
