"""Contracts: what the three ops' files say, and that a wrong file is refused in one line that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from baseline.contract import load_contract
from baseline.errors import UsageError
from tests.kernel_call import KERNELS, OPS, PACKED_OPS

GOOD: dict[str, Any] = {
    "op": "scale",
    "summary": "y = w x",
    "inputs": {"x": "T[m, K]", "w": "uint32[K*BITS/32]"},
    "outputs": {"y": "T[m]"},
    "constants": {"K": "int", "BITS": [4, 8], "T": ["float32", "bfloat16"]},
    "check": [{"K": 64, "BITS": 4, "T": "float32", "m": 2}],
    "bench": [{"K": 4096, "BITS": 8, "T": "bfloat16", "m": 1}],
}


def write(folder: Path, **changes: Any) -> Path:
    """`GOOD` with top-level changes, in a folder of its op's name."""
    op = folder / "scale"
    op.mkdir()
    (op / "contract.yaml").write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return op


def test_dims_are_ordered_by_first_appearance() -> None:
    dims = {op: load_contract(KERNELS / op).dims for op in OPS}
    packed = {"expert_gate_up": ("r", "s", "p"), "expert_down": ("p", "s"), "qmatvec": ("m",)}
    assert dims == packed | {"gated_delta_step": ("b",)}


def test_bench_shapes_are_the_397b_models() -> None:
    contract = load_contract(KERNELS / "expert_gate_up")
    case = contract.bench[0]
    shapes = {tensor.name: contract.shape(tensor, case) for tensor in contract.inputs + contract.outputs}
    assert shapes == {"x": (1, 4096), "experts": (4, 1769472), "row": (4,), "slot": (4,), "h": (4, 1024)}
    down = load_contract(KERNELS / "expert_down").bench[0].constants
    assert case.constants["STRIDE"] == down["STRIDE"] == 7077888
    assert (case.constants["UP_BIASES"], down["DOWN_BIASES"]) == (4587520, 6946816)


def test_the_delta_steps_state_is_large_and_its_heads_share_keys() -> None:
    contract = load_contract(KERNELS / "gated_delta_step")
    (case,) = contract.bench
    shapes = {tensor.name: contract.shape(tensor, case) for tensor in contract.inputs + contract.outputs}
    assert shapes["state_in"] == shapes["state_out"] == (1, 64, 128, 128)
    assert shapes["q"] == shapes["k"] == (1, 16, 128) and shapes["v"] == shapes["y"] == (1, 64, 128)
    checks = [case.constants for case in contract.check]
    assert {c["T"] for c in checks} == {"float32", "float16", "bfloat16"}
    assert {int(c["HV"]) // int(c["HK"]) for c in checks} >= {1, 2, 3, 4}
    assert not any(int(c["HV"]) % int(c["HK"]) for c in checks) and any(int(c["DV"]) % 4 for c in checks)


@pytest.mark.parametrize("op", PACKED_OPS)
def test_checks_cover_every_format_and_ragged_sizes(op: str) -> None:
    cases = [case.constants for case in load_contract(KERNELS / op).check]
    formats = {(c["BITS"], c["GROUP"]) for c in cases}
    assert formats == {(bits, group) for bits in (2, 3, 4, 6, 8) for group in (32, 64, 128)}
    types = {"float32", "float16", "bfloat16"}
    assert {c["T"] for c in cases} == {c["S"] for c in cases} == types
    rows = {"expert_gate_up": "I", "expert_down": "H", "qmatvec": "N"}[op]
    assert all(int(c[rows]) % 2 for c in cases)


def test_element_type_follows_the_type_constant(tmp_path: Path) -> None:
    contract = load_contract(write(tmp_path))
    instance = contract.bench[0].constants
    assert [contract.element_type(t, instance) for t in contract.inputs] == ["bfloat16", "uint32"]
    assert contract.type_constants == ("T",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "other"}, "its folder is 'scale'"),
        ({"extra": 1}, "the keys op, summary"),
        ({"inputs": {"x": "T m"}}, "tensor x is 'T m'"),
        ({"inputs": {"x": "half[m, K]"}}, "unknown type half"),
        ({"inputs": {}}, "inputs must be a mapping"),
        ({"outputs": {"x": "T[m]"}}, "'x' is not an identifier, or is used twice"),
        ({"outputs": {"Y": "T[m]"}}, "Y: constants have capital names"),
        ({"constants": {**GOOD["constants"], "k": "int"}}, "k: constants have capital names"),
        ({"constants": {**GOOD["constants"], "BITS": [4, "float32"]}}, "constant BITS must be"),
        ({"constants": {**GOOD["constants"], "T": ["float8"]}}, "constant T must be"),
        ({"inputs": {"x": "T[m, K**2]"}}, "only names, integers, + - * / and"),
        ({"check": []}, "check must be a list"),
        ({"check": [{**GOOD["check"][0], "K": 6}]}, "a division leaves a remainder"),
        ({"check": [{**GOOD["check"][0], "BITS": 3}]}, "BITS is 3; it may be 4, 8"),
        ({"check": [{**GOOD["check"][0], "K": -64}]}, "K is -64; it must be an integer"),
        ({"bench": [{**GOOD["bench"][0], "m": 0}]}, "each positive"),
        ({"bench": [{**GOOD["bench"][0], "n": 1}]}, "it needs m"),
        ({"bench": [{"BITS": 4, "T": "float32", "m": 1}]}, "the constant K is missing"),
    ],
)
def test_a_wrong_contract_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        load_contract(folder)
    assert message in str(caught.value)
    assert str(folder / "contract.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "op: [", "just text", "\x00"])
def test_an_unreadable_contract_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "contract.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"contract\.yaml"):
        load_contract(tmp_path)


def test_instances_are_checked(tmp_path: Path) -> None:
    contract = load_contract(write(tmp_path))
    contract.check_instance({"K": 64, "BITS": 4, "T": "float32"})
    for wrong in ({"K": 64, "BITS": 4}, {"K": "64", "BITS": 4, "T": "float32"}, {**GOOD["check"][0]}):
        with pytest.raises(UsageError, match="scale"):
            contract.check_instance(wrong)
