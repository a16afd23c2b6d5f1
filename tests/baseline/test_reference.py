"""The float64 oracle against MLX's own quantisation and quantised products."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mlx_lm.models.gated_delta import gated_delta_ops

from baseline.contract import Case, load_contract
from baseline.elements import Array, store, widen
from baseline.errors import UsageError
from baseline.reference import dequantize, oracle, unpack
from baseline.samples import poisoned_outputs, sample_inputs
from tests.kernel_call import KERNELS, OPS

FLOAT32_CASES = {
    op: [case for case in load_contract(KERNELS / op).check if case.constants["T"] == "float32"] for op in OPS
}
DELTA = load_contract(KERNELS / "gated_delta_step")
MX_TYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@settings(max_examples=40)
@given(
    bits=st.sampled_from([2, 3, 4, 6, 8]),
    group=st.sampled_from([32, 64, 128]),
    rows=st.integers(1, 5),
    groups=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_dequantize_agrees_with_mlx(bits: int, group: int, rows: int, groups: int, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, groups * group)).astype(np.float32)
    packed, scales, biases = mx.quantize(mx.array(weight), group_size=group, bits=bits)
    expected = np.array(mx.dequantize(packed, scales, biases, group_size=group, bits=bits))
    factors = [np.array(part).astype(np.float64) for part in (scales, biases)]
    got = dequantize(np.array(packed), *factors, bits, group)
    assert got.shape == weight.shape
    assert np.abs(got - expected).max() <= 2**-22 * np.abs(expected).max()


@given(
    bits=st.sampled_from([2, 3, 4, 6, 8]),
    words=hnp.arrays(np.uint32, st.tuples(st.integers(1, 3), st.sampled_from([3, 6, 24]))),
)
def test_unpack_reads_the_bits_of_a_little_endian_stream(bits: int, words: Array) -> None:
    for row, got in zip(words, unpack(words, bits), strict=True):
        stream = int.from_bytes(row.astype("<u4").tobytes(), "little")
        assert got.tolist() == [stream >> i * bits & (2**bits - 1) for i in range(len(row) * 32 // bits)]


@given(hnp.arrays(np.float32, 16, elements=st.floats(width=32)))
def test_store_rounds_as_mlx_does(values: Array) -> None:
    for name in ("float16", "bfloat16"):
        with np.errstate(over="ignore"):
            got = widen(store(values, name), name)
        expected = np.array(mx.array(values).astype(MX_TYPES[name]).astype(mx.float32))
        assert np.array_equal(got, expected.astype(np.float64), equal_nan=True)


def mlx_matvec(x: Array, packed: tuple[Array, Array, Array], constants: dict[str, object]) -> Array:
    weight, scales, biases = packed
    kind = str(constants["S"])
    factors = [mx.array(widen(part, kind).astype(np.float32)) for part in (scales, biases)]
    product = mx.quantized_matmul(
        mx.array(x), mx.array(weight), *factors, group_size=constants["GROUP"], bits=constants["BITS"]
    )
    return np.array(product)


def projection(name: str, outputs: int, width: int, constants: dict[str, object], record: Array) -> tuple[Array, ...]:
    """The three tensors of one projection of one expert's record (bytes)."""
    bits, group = int(constants["BITS"]), int(constants["GROUP"])
    dtype = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[str(constants["S"])]
    found = []
    for part, kind, columns in (
        ("WEIGHT", np.uint32, width * bits // 32),
        ("SCALES", dtype, width // group),
        ("BIASES", dtype, width // group),
    ):
        start = int(constants[f"{name}_{part}"])
        size = outputs * columns * np.dtype(kind).itemsize
        found.append(record[start : start + size].copy().view(kind).reshape(outputs, columns))
    return tuple(found)


def close(got: Array, expected: Array) -> bool:
    return bool(np.abs(got - expected).max() <= 2e-6 * np.abs(expected).max() + 1e-6)


@pytest.mark.parametrize("index", range(len(FLOAT32_CASES["qmatvec"])))
def test_qmatvec_agrees_with_mlx(index: int) -> None:
    contract, case = load_contract(KERNELS / "qmatvec"), FLOAT32_CASES["qmatvec"][index]
    inputs = sample_inputs(contract, case, np.random.default_rng(index))
    packed = (inputs["w"], inputs["scales"], inputs["biases"])
    expected = mlx_matvec(inputs["x"], packed, dict(case.constants))
    assert close(oracle("qmatvec", case.constants, inputs)["y"], expected)


@pytest.mark.parametrize("index", range(len(FLOAT32_CASES["expert_gate_up"])))
def test_expert_gate_up_agrees_with_mlx(index: int) -> None:
    contract, case = load_contract(KERNELS / "expert_gate_up"), FLOAT32_CASES["expert_gate_up"][index]
    constants = dict(case.constants)
    inputs = sample_inputs(contract, case, np.random.default_rng(index))
    got = oracle("expert_gate_up", case.constants, inputs)["h"]
    for pair, (row, slot) in enumerate(zip(inputs["row"], inputs["slot"], strict=True)):
        record = inputs["experts"][slot].view(np.uint8)
        x = inputs["x"][row][None]
        gate, up = (
            mlx_matvec(x, projection(name, constants["I"], constants["H"], constants, record), constants)
            for name in ("GATE", "UP")
        )
        assert close(got[pair], (gate / (1 + np.exp(-gate)) * up)[0])


@pytest.mark.parametrize("index", range(len(FLOAT32_CASES["expert_down"])))
def test_expert_down_agrees_with_mlx(index: int) -> None:
    contract, case = load_contract(KERNELS / "expert_down"), FLOAT32_CASES["expert_down"][index]
    constants = dict(case.constants)
    inputs = sample_inputs(contract, case, np.random.default_rng(index))
    products = []
    for h, slot in zip(inputs["h"], inputs["slot"], strict=True):
        record = inputs["experts"][slot].view(np.uint8)
        down = projection("DOWN", constants["H"], constants["I"], constants, record)
        products.append(mlx_matvec(h[None], down, constants)[0])
    shape = (-1, constants["TOP"], constants["H"])
    y, scores = mx.array(np.stack(products)).reshape(shape), mx.array(inputs["weight"]).reshape(shape[:2])
    expected = (y * scores[..., None]).sum(axis=-2)  # as mlx-lm combines
    assert close(oracle("expert_down", case.constants, inputs)["y"], np.array(expected))


@pytest.mark.parametrize("case", load_contract(KERNELS / "expert_down").check)
def test_sampled_routing_weights_are_positive_and_add_up_to_about_one(case: Case) -> None:
    contract = load_contract(KERNELS / "expert_down")
    weight = sample_inputs(contract, case, np.random.default_rng(0))["weight"].reshape(-1, case.constants["TOP"])
    assert weight.min() > 0 and np.abs(weight.sum(axis=1) - 1).max() <= 0.5


@settings(max_examples=40)
@given(
    keys=st.integers(1, 4),
    values_per_key=st.integers(1, 4),
    dk=st.sampled_from([1, 5, 32, 64, 96, 128, 160]),
    dv=st.integers(1, 40),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_gated_delta_step_agrees_with_mlx_lm(
    keys: int, values_per_key: int, dk: int, dv: int, batch: int, seed: int
) -> None:
    constants = {"HK": keys, "HV": keys * values_per_key, "DK": dk, "DV": dv, "T": "float32"}
    inputs = sample_inputs(DELTA, Case(constants, {"b": batch}), np.random.default_rng(seed))
    *tokens, state = (mx.array(array) for array in inputs.values())
    expected = gated_delta_ops(*(token[:, None] for token in tokens), state)
    got = oracle("gated_delta_step", constants, inputs)
    assert close(got["y"], np.array(expected[0])[:, 0]) and close(got["state_out"], np.array(expected[1]))


@given(scale=st.floats(0.01, 10), shift=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1))
def test_the_recurrences_samples_keep_it_well_conditioned(scale: float, shift: float, seed: int) -> None:
    inputs = sample_inputs(DELTA, DELTA.check[0], np.random.default_rng(seed), scale, shift)
    assert np.allclose(np.linalg.norm(inputs["k"], axis=-1), 1)
    assert all(inputs[name].min() > 0 and inputs[name].max() < 1 for name in ("g", "beta"))


def test_an_unknown_op_is_refused() -> None:
    with pytest.raises(UsageError, match="no oracle for the op softmax"):
        oracle("softmax", {}, {})


@pytest.mark.parametrize("op", OPS)
def test_samples_fit_the_contract_and_repeat(op: str) -> None:
    contract = load_contract(KERNELS / op)
    for case in contract.check:
        first, second = (sample_inputs(contract, case, np.random.default_rng(3)) for _ in range(2))
        shapes = {tensor.name: contract.shape(tensor, case) for tensor in contract.inputs}
        assert shapes == {name: array.shape for name, array in first.items()}
        assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)
        outputs = poisoned_outputs(contract, case)
        for tensor in contract.outputs:
            assert np.isnan(widen(outputs[tensor.name], contract.element_type(tensor, case.constants))).all()
