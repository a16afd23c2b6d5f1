"""What a check's process leaves may be anything: it becomes a failure with a reason, and nothing is raised."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from baseline.contract import load_contract
from baseline.variant import Choice, parse_variant
from harness import verify as verifying
from harness.build import build
from harness.candidate import Status
from harness.sandbox import ChildResult, ChildStatus, run_child
from harness.targets import Cpu
from harness.verify import measure_noise, verify
from tests.harness.variants import RIGHT, write_variant

SEED = 5
FILE = "check.outputs.safetensors"
ANY = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["hashes", "x"]), inner, max_size=2),
    max_leaves=6,
)


@pytest.fixture
def forge(kernels, cache, tmp_path, monkeypatch):
    """The verdict on a right kernel whose process left another payload or another file than it does."""
    plain, right = kernels / "qmatvec" / "cpu" / "plain.cpp", write_variant(kernels, "right", RIGHT)
    contract = load_contract(plain.parent.parent)
    libraries = [build(Choice.defaults(parse_variant(path)), contract, Cpu(), cache)[1] for path in (plain, right)]
    noise, made = measure_noise(libraries[0], 1, tmp_path, 20.0).errors, {}

    def really(job, folder, timeout_s):
        made["payload"] = (result := run_child(job, folder, timeout_s)).payload
        return result

    monkeypatch.setattr(verifying, "run_child", really)
    assert verify(libraries[1], noise, SEED, tmp_path, 20.0).right
    content = (tmp_path / FILE).read_bytes()

    def run(change=lambda payload: payload, file=content):
        payload = change(copy.deepcopy(dict(made["payload"])))
        monkeypatch.setattr(verifying, "run_child", lambda *_: ChildResult(ChildStatus.OK, 1.0, payload=payload))
        (tmp_path / FILE).unlink(missing_ok=True)
        if file is not None:
            (tmp_path / FILE).write_bytes(file)
        return verify(libraries[1], noise, SEED, tmp_path, 20.0)

    run.content, run.folder = content, tmp_path
    return run


def test_unchanged_it_is_right(forge):
    assert forge().failure is None


@ANY
@given(said=JSON, key=st.sampled_from(["calls", "code", "refused"]))
def test_whatever_it_says_raises_nothing(said, key, forge):
    failure = forge(lambda payload: payload | {key: said}).failure
    assert failure.status in (Status.DISHONEST, Status.WRONG, Status.FAILED_BUILD)


@ANY
@given(said=JSON, key=st.sampled_from(["hashes", "intact", "findings"]))
def test_whatever_it_says_of_a_call_raises_nothing(said, key, forge):
    def change(payload):
        payload["calls"][0][key] = said
        return payload

    failure = forge(change).failure
    fine = (key == "intact" and said) or (key == "findings" and not said)
    assert fine or failure.status in (Status.DISHONEST, Status.WRONG, Status.UNSAFE)


@ANY
@given(data=st.data())
def test_a_damaged_file_raises_nothing(data, forge):
    content = bytearray(forge.content)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1) | st.integers(0, 200))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    failure = forge(file=bytes(content)).failure
    assert failure is None or failure.status in (Status.DISHONEST, Status.WRONG)


def safetensors(header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


NO_OUTPUTS = {
    "nothing": None,
    "an empty file": b"",
    "a zip": b"PK\x03\x04" + bytes(60),
    "a header of 8 EB": (2**63).to_bytes(8, "little") + b"{}",
    "none of the arrays": safetensors({}),
    "more than there is": safetensors({"0.y": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
}


@pytest.mark.parametrize("name", NO_OUTPUTS)
def test_a_file_that_holds_no_outputs(name, forge):
    failure = forge(file=NO_OUTPUTS[name]).failure
    assert failure.status is Status.DISHONEST and failure.reason.startswith("its process left no answers: ")


@pytest.mark.parametrize(
    "change",
    [lambda y: y.astype(np.float64), lambda y: y.reshape(-1), lambda y: y[..., :-1], lambda y: y[None]],
    ids=["wider", "flat", "shorter", "deeper"],
)
def test_outputs_of_another_shape_or_type_are_none(change, forge, tmp_path):
    arrays = load_file(forge.folder / FILE)
    name = max(arrays, key=lambda name: arrays[name].size)
    save_file(arrays | {name: np.ascontiguousarray(change(arrays[name]))}, tmp_path / "changed")
    failure = forge(file=(tmp_path / "changed").read_bytes()).failure
    assert failure.status is Status.DISHONEST and "its process left no answers: ValueError(" in failure.reason
