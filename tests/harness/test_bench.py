"""The bench: what it counts, how it compares, and that every row comes, or says why not."""

import json
import signal
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from baseline import probe
from baseline.contract import load_contract
from baseline.errors import UsageError
from baseline.mlx_ops import bytes_touched
from baseline.samples import poisoned_outputs, sample_inputs
from baseline.variant import Choice, parse_variant
from harness.bench import engine, ops, reads, record, rivals, view
from harness.bench.actors import LayerTimes
from harness.bench.figures import Figure, Row, Target, interleave, paired
from harness.bench.process import Process
from harness.bench.run import BenchSettings, bench
from harness.doctor import machine
from harness.settings import DEFAULT_IO, OPS
from tests.harness.conftest import KERNELS
from tests.harness.test_cli import ROOT, command, environment
from tests.harness.test_cli import run as run_command
from tests.harness.variants import BAD, RIGHT, write_variant
from tests.models import TINY_MOE

RATES = st.lists(st.floats(0.01, 1e4), min_size=2, max_size=30)


# ---- what is counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_bytes_are_those_of_arrays_that_numpy_and_mlx_make(op):
    contract = load_contract(KERNELS / op)
    for case in (*contract.check, *contract.bench):
        inputs = sample_inputs(contract, case, np.random.default_rng(0))
        arrays = {**inputs, **poisoned_outputs(contract, case)}
        size = sum(array.nbytes for name, array in arrays.items() if name != "experts")
        if "experts" in inputs:
            h, i = int(case.constants["H"]), int(case.constants["I"])
            shapes = {"expert_gate_up": [(i, h), (i, h)], "expert_down": [(h, i)]}[op]
            size += case.dims["p"] * sum(quantized_bytes(shape, case.constants) for shape in shapes)
        assert bytes_touched(contract, case) == size


def quantized_bytes(shape: tuple[int, int], constants: Any) -> int:
    """What MLX makes of a matrix."""
    matrix = mx.zeros(shape, getattr(mx, constants["S"]))
    return sum(part.nbytes for part in mx.quantize(matrix, constants["GROUP"], constants["BITS"]))


@pytest.mark.parametrize("op", ["expert_gate_up", "expert_down"])
def test_no_expert_is_read_twice_in_a_call(op):
    case = ops.op_case(KERNELS, op)
    names = [tensor.name for tensor in case.contract.inputs]
    for inputs, _ in case.sets:
        slots = inputs[names.index("slot")]
        assert len(set(slots.tolist())) == len(slots) == case.case.dims["p"]


def test_inputs_rotate_over_more_than_the_last_level_cache():
    case = ops.op_case(KERNELS, "qmatvec")
    assert sum(array.nbytes for array in case.arrays()) > 2 * probe.last_level_cache()
    assert len({array.ctypes.data for array in case.arrays()}) == len(case.arrays())


# ---- figures and ratios ----------------------------------------------------------------------------


@given(RATES)
def test_a_figure_is_the_median_and_the_quartiles(samples):
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    figure = Figure.of(samples)
    assert (figure.low, figure.median, figure.high) == pytest.approx((low, median, high))
    assert figure.samples == len(samples)


@given(RATES, st.floats(0.1, 10))
def test_what_slows_a_whole_round_does_not_change_the_ratio(disturbance, factor):
    ratio = paired([factor * d for d in disturbance], disturbance)
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((factor, factor, factor))


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0, 0.0]), ([], [])])
def test_samples_that_are_no_pairs_are_refused(ours, theirs):
    with pytest.raises(ValueError):
        paired(ours, theirs)


@pytest.mark.parametrize(("value", "least", "met"), [(0.85, True, True), (0.84, True, False), (0.86, False, False)])
def test_a_target_is_met_at_its_bound(value, least, met):
    row = Row("ops", "op", "kernel", "GB/s", Figure.of([1.0]), {"memory": Figure.of([value])})
    target, other = Target("memory", 0.85, least), Target("other", 0.85)
    assert row.reached(target) is met and replace(row, targets=(target,)).met is met
    assert replace(row, targets=(other,)).met is None and row.met is None
    assert replace(row, targets=(target, other)).met is met


def test_a_row_meets_its_targets_when_it_meets_all():
    row = Row("ops", "op", "kernel", "GB/s", Figure.of([1.0]), {"a": Figure.of([2.0]), "b": Figure.of([3.0])})
    assert replace(row, targets=(Target("a", 2.0), Target("b", 3.0))).met is True
    assert replace(row, targets=(Target("a", 2.0), Target("b", 3.1))).met is False


def test_arms_take_turns_and_the_first_round_is_left_out():
    calls: list[str] = []

    def arm(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    samples = interleave({"a": lambda: arm("a"), "b": lambda: arm("b")}, 3)
    assert "".join(calls) == "abbaabba"
    assert samples == {"a": [4.0, 5.0, 8.0], "b": [3.0, 6.0, 7.0]}


def test_an_op_is_compared_with_the_memory_and_with_mlx_s_fastest_way():
    choice = Choice.defaults(parse_variant(KERNELS / "qmatvec" / "cpu" / "vector.cpp"))
    samples = {"memory read": [10.0, 20.0], "vector": [9.0, 16.0], "slow": [1.0, 1.0], "quick": [3.0, 4.0]}
    rows = list(ops.rows("qmatvec", choice, samples, ["slow", "quick"], 0.0))
    ours = next(row for row in rows if row.contender == "vector")
    assert ours.ratios["memory"].median == pytest.approx((0.9 + 0.8) / 2) and ours.met
    assert ours.ratios["MLX"].median == pytest.approx((3 + 4) / 2)


def test_a_layer_is_compared_with_the_sum_of_its_parts():
    times = [LayerTimes(2.4, 1.5, 0.5), LayerTimes(4.4, 3.0, 1.0)]
    whole, *parts = engine.rows_of_layer("warm", times)
    assert whole.ratios["parts"].median == pytest.approx((1.2 + 1.1) / 2) and whole.met is False
    assert [part.figure.median for part in parts if part.figure] == pytest.approx([2.25, 0.75])


# ---- kernels ---------------------------------------------------------------------------------------


def test_a_variant_that_does_the_work_fifty_times_is_not_the_quickest(kernels, cache):
    again = "for (int again = 0; again < 50; ++again) {" + RIGHT + 'asm volatile("" ::: "memory"); }'
    paths = [write_variant(kernels, "slow", again), write_variant(kernels, "quick", RIGHT)]
    case = ops.op_case(kernels, "qmatvec")
    best = ops.best_choice([Choice.defaults(parse_variant(path)) for path in paths], case, cache)
    assert best is not None and best.variant.name == "quick"


def test_a_kernel_that_is_wrong_is_found_out(kernels, cache, tmp_path):
    path = write_variant(kernels, "wrong", BAD["skips_the_biases"])
    case = ops.op_case(kernels, "qmatvec")
    with probe.library(tmp_path) as library:
        choice = Choice.defaults(parse_variant(path))
        rows = list(ops.measure(case, choice, library, cache, 1, ops.LlamaSamples(None)))
    assert "differs from MLX" in next(row.note for row in rows if row.contender == "wrong")


# ---- a process of its own --------------------------------------------------------------------------


def test_an_object_in_a_process_keeps_its_state_and_its_errors_are_one_line():
    with Process("collections", "Counter", "aab") as counter:
        counter.call("update", "b")
        assert counter.call("most_common") == [("a", 2), ("b", 2)]
    with Process("pathlib", "Path", "/no/such/file") as path, pytest.raises(RuntimeError, match="No such file"):
        path.call("read_text")


def test_a_process_that_dies_is_an_error():
    with Process("ctypes", "CDLL", None) as libc, pytest.raises(RuntimeError, match="ended with status -6"):
        libc.call("abort")


def test_a_closed_process_is_gone():
    process = Process("collections", "Counter")
    process.close()
    assert process._process.exitcode == -signal.SIGKILL


# ---- the whole bench -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, packed) -> Path:
    """The bundled model, as the bench wants it."""
    folder = tmp_path_factory.mktemp("slice")
    (folder / "checkpoint").symlink_to(TINY_MOE)
    (folder / "packed").symlink_to(packed)
    return folder


@pytest.fixture
def settings(kernels, cache, folder, tmp_path, monkeypatch) -> BenchSettings:
    """A quick bench: small shapes, files and prompts."""
    monkeypatch.setattr(probe, "FILE_BYTES", 32 << 20)
    monkeypatch.setattr(reads, "SIZES", (16384, 1 << 20))
    monkeypatch.setattr(reads, "CALL_BYTES", 1 << 20)
    monkeypatch.setattr(engine, "PROMPT_TOKENS", 40)
    monkeypatch.setattr(rivals, "LLAMA_PACKAGES", ("no_such_package",))
    return BenchSettings(kernels, cache, tmp_path / "disk", folder, {}, DEFAULT_IO, rounds=1)


def test_a_small_run_has_every_row_and_leaves_nothing(settings, tmp_path, capsys):
    rows = list(bench(settings, lambda text: None))
    found = {(row.table, row.name, row.contender) for row in rows if row.figure is not None}
    assert found >= {("ops", op, contender) for op in OPS for contender in ("memory read", "plain")}
    assert found >= {("reads", size, who) for size in ("16 KiB", "1 MiB") for who in ("expert_read", "probe")}
    parts = ("whole layer", "reads alone", "kernels alone")
    assert found >= {("layer", state, part) for state in ("warm", "cold") for part in parts}
    decode = ("decode warm", "decode cold", "prefill of 40", "RSS after decode", "RSS after prefill")
    assert found >= {("decode", name, "streamed") for name in decode} | {("decode", "decode", "mlx-lm")}
    llama = [row for row in rows if row.contender == "llama.cpp"]
    assert [row.name for row in llama] == ["dense decode", "decode warm"]
    assert all(row.figure is None and "not installed: no_such_package" in row.note for row in llama)
    assert list((tmp_path / "disk").iterdir()) == []
    check_record(rows, settings, tmp_path / "record")
    view.show(rows, Console(width=100, highlight=False))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    words = " ".join(lines).split()
    assert all(view.number(row.figure.median) in words for row in rows if row.figure)


def check_record(rows: list[Row], settings: BenchSettings, folder: Path) -> None:
    """What is written is read back."""
    record.write(folder, rows, machine(), settings.to_json())
    table = pd.read_csv(folder / "table.tsv", sep="\t")
    assert list(table.contender) == [row.contender for row in rows]
    assert list(table["median"].dropna()) == pytest.approx([r.figure.median for r in rows if r.figure], rel=1e-3)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["rows"] == json.loads(json.dumps([row.to_json() for row in rows]))
    text = (folder / "README.md").read_text()
    assert all(f"| {row.name} | {row.contender} |" in text for row in rows)


def test_a_disk_that_cannot_be_used_is_a_row(settings, tmp_path):
    (tmp_path / "file").touch()
    (row,) = bench(replace(settings, disk=tmp_path / "file" / "disk", parts=("reads",)), lambda text: None)
    assert row.figure is None and "Not a directory" in row.note


def test_an_engine_that_cannot_load_is_a_row(settings, tmp_path):
    (tmp_path / "checkpoint").symlink_to(TINY_MOE)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "manifest.json").write_text("{}")
    broken = replace(settings, slice=tmp_path, parts=("engine",))
    (row,) = bench(broken, lambda text: None)
    assert row.figure is None and "is of format None" in row.note


# ---- the command -----------------------------------------------------------------------------------


def test_without_a_slice_it_says_how_to_make_one_and_json_is_alone(tmp_path):
    done = run_command(tmp_path, "bench", "--json", "op=engine", f"slice={tmp_path}/none")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["figure"] is None and row["met"] is None
    synth = f"nightforge synth qwen3.5-397b-a17b {tmp_path}/none/checkpoint layers=4 experts=64 vocab=32768"
    assert f"{synth} && nightforge pack {tmp_path}/none/checkpoint {tmp_path}/none/packed" in row["note"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"parts": ()}, "a bench needs at least one of"),
        ({"rounds": 0}, "rounds must be from 1 to 1000, got 0"),
        ({"io": {"cache": "warm"}}, "io.cache must be one of os, direct, mapped"),
    ],
)
def test_what_cannot_be_is_refused(settings, changed, text):
    with pytest.raises(UsageError, match=text):
        replace(settings, **changed)


def test_ctrl_c_leaves_nothing(tmp_path):
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command("bench", "op=reads"), cwd=ROOT, env=environment(tmp_path), **pipes)
    assert started.stderr is not None
    while not started.stderr.readline().startswith("reads: writing"):
        assert started.poll() is None
    time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    out, errors = started.communicate(timeout=60)
    assert (started.returncode, out) == (130, "") and "Traceback" not in errors
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
