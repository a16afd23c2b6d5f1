"""Each op at the contract's bench shape: the best variant beside the memory, MLX's own op and llama.cpp."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.gated_delta import gated_delta_ops

from baseline import native
from baseline.ceilings import MemoryCeiling
from baseline.contract import Case, Contract, load_contract
from baseline.elements import STORAGE, Array, widen
from baseline.mlx_ops import Run, bytes_touched, mlx_runs
from baseline.probe import cores, huge_copy, last_level_cache
from baseline.samples import sample_inputs
from baseline.targets import cpu
from baseline.targets.compiler import BuildError
from baseline.variant import Choice, Variant, list_variants
from harness.bench.figures import Arm, Figure, Row, Target, interleave, paired
from harness.bench.rivals import LLAMA
from harness.launch import CpuLaunch
from harness.rotation import ROTATED_BYTES, Rotation, rotations

TABLE, UNIT = "ops", "GB/s"
MEMORY = "memory read"
OF_MEMORY, OF_MLX = "memory", "MLX"
LEAST = 0.85
SAMPLE_S = 0.01  # a sample is as many launches as take about this long
TRIALS = 5  # launches by which the best variant is found
MOST_DIFFERENCE = 0.05  # from MLX's result, over its largest value: more is a wrong kernel, or a wrong bench


@dataclass(frozen=True)
class OpCase:
    """An op at its bench shape. `sets`: inputs and outputs of a call, together more than the last-level cache holds."""

    contract: Contract
    case: Case
    sets: Sequence[tuple[list[Array], list[Array]]]

    @property
    def nbytes(self) -> int:
        """Bytes that a call must touch."""
        return bytes_touched(self.contract, self.case)

    @property
    def dims(self) -> list[int]:
        """In the contract's order."""
        return [self.case.dims[name] for name in self.contract.dims]

    def arrays(self) -> list[Array]:
        """All of them."""
        return [array for inputs, outputs in self.sets for array in (*inputs, *outputs)]


@dataclass
class LlamaSamples:
    """llama.cpp's GB/s of weights as `measure` samples it in each op's rounds, or why there are none."""

    arm: Arm | None
    reason: str = ""
    samples: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def row(self) -> Row:
        """All its samples together, beside the memory's of the same rounds."""
        name, contender = "dense decode", LLAMA
        if not self.samples:
            return Row(TABLE, name, contender, UNIT, note=self.reason or "no op was measured beside it")
        ratios = {OF_MEMORY: paired(self.samples, self.memory)}
        return Row(TABLE, name, contender, UNIT, Figure.of(self.samples), ratios)


def op_case(kernels: Path, op: str) -> OpCase:
    """The first bench case of an op, with random inputs on huge pages, as the engine's weights and experts are. Each
    pair has a slot of its own: no expert is read twice."""
    contract = load_contract(kernels / op)
    case = contract.bench[0]
    inputs = sample_inputs(contract, case, np.random.default_rng(0))
    if "slot" in inputs:
        inputs["slot"] = np.arange(case.dims["p"], dtype=np.int32) % case.dims["s"]
    kinds = [STORAGE[contract.element_type(t, case.constants)] for t in contract.outputs]
    outputs = [np.ones(contract.shape(t, case), kind) for t, kind in zip(contract.outputs, kinds, strict=True)]
    count = rotations(bytes_touched(contract, case), max(ROTATED_BYTES, 2 * last_level_cache()))
    sets = [([huge_copy(a) for a in inputs.values()], [huge_copy(a) for a in outputs]) for _ in range(count)]
    return OpCase(contract, case, sets)


def usable_choices(kernels: Path, op: str) -> list[Choice]:
    """Every CPU variant of an op that can run here at the bench shape, on all cores where it lets that be chosen."""
    constants = load_contract(kernels / op).bench[0].constants
    variants = [v for v in list_variants(kernels, op, "cpu") if v.supports_instance(constants)]
    return [_on_all_cores(v) for v in variants if not cpu.missing_features(v)]


def _on_all_cores(variant: Variant) -> Choice:
    tunables = dict(Choice.defaults(variant).tunables)
    name = variant.launch["threads"]
    if isinstance(name, str) and cores() in variant.tunables[name]:
        tunables[name] = cores()
    return Choice(variant, tunables)


def launch(choice: Choice, op: OpCase, cache: Path) -> CpuLaunch:
    """The kernel of a choice, built or taken from `cache`. Raises what a build raises."""
    built = cpu.build(choice, op.contract, [op.case.constants], cache)
    call = {"library": str(built.path), "symbol": built.symbols[0], "threads": built.threads, "dims": op.dims}
    return CpuLaunch(call)


def best_choice(choices: Sequence[Choice], op: OpCase, cache: Path) -> Choice | None:
    """The one with the lowest median of a few launches; None where not one of them builds."""
    launches: list[tuple[Choice, CpuLaunch]] = []
    for choice in choices:
        try:
            launches.append((choice, launch(choice, op, cache)))
        except BuildError:
            continue
    rotation = Rotation(list(op.sets))
    arms: dict[str, Arm] = {c.variant.name: _timed(kernel, rotation) for c, kernel in launches}
    seconds = {name: float(np.median(found)) for name, found in interleave(arms, TRIALS).items()}
    return min((c for c, _ in launches), key=lambda c: seconds[c.variant.name], default=None)


def _timed(kernel: CpuLaunch, rotation: Rotation) -> Arm:
    return lambda: kernel.seconds(rotation.take(1))


def measure(op: OpCase, choice: Choice, probe: Path, cache: Path, rounds: int, llama: LlamaSamples) -> Iterator[Row]:
    """The rows of one op. `probe` is the library of the memory's reader; llama.cpp's samples go into `llama`."""
    kernel = launch(choice, op, cache)
    runs = {"mlx-lm ops compiled": mx.compile(_delta)} if op.contract.op == "gated_delta_step" else {}
    runs |= mlx_runs(op.contract, op.case)
    inputs = [_to_mlx(op, given) for given, _ in op.sets]
    arms: dict[str, Arm] = {
        MEMORY: _awake(MemoryCeiling(probe, op.arrays(), cores()).gbps),
        choice.variant.name: _kernel_gbps(kernel, op),
        **{name: _mlx_gbps(run, inputs, op.nbytes) for name, run in runs.items()},
    }
    if llama.arm is not None:
        arms[LLAMA] = llama.arm
    differences = {name: _difference(kernel, op, run, inputs[0]) for name, run in runs.items()}
    samples = interleave(arms, rounds)
    llama.memory += samples[MEMORY] if llama.arm else []
    llama.samples += samples.get(LLAMA, [])
    yield from rows(op.contract.op, choice, samples, list(runs), min(differences.values()))


def rows(
    op: str, choice: Choice, samples: Mapping[str, list[float]], mlx: Sequence[str], difference: float
) -> Iterator[Row]:
    """Rows of the samples, GB/s by contender: the memory, the variant, and `mlx`, MLX's own ways to compute the op;
    llama.cpp has a row of its own (`LlamaSamples`)."""
    memory, ours = samples[MEMORY], samples[choice.variant.name]
    fastest = max(mlx, key=lambda name: np.median(samples[name]))
    yield Row(TABLE, op, MEMORY, UNIT, Figure.of(memory))
    ratios = {OF_MEMORY: paired(ours, memory), OF_MLX: paired(ours, samples[fastest])}
    if LLAMA in samples:
        ratios[LLAMA] = paired(ours, samples[LLAMA])
    tunables = ", ".join(f"{name} {value}" for name, value in choice.tunables.items())
    note = tunables if difference <= MOST_DIFFERENCE else f"{tunables}; differs from MLX by {difference:.2g}"
    yield Row(TABLE, op, choice.variant.name, UNIT, Figure.of(ours), ratios, (Target(OF_MEMORY, LEAST),), note)
    for name in mlx:
        yield Row(TABLE, op, name, UNIT, Figure.of(samples[name]), {OF_MEMORY: paired(samples[name], memory)})


def _kernel_gbps(kernel: CpuLaunch, op: OpCase) -> Arm:
    rotation = Rotation(list(op.sets))
    seconds = kernel.seconds(rotation.take(1))
    launches = max(int(SAMPLE_S / seconds), 1)
    return _awake(lambda: op.nbytes / kernel.seconds(rotation.take(launches)) / 1e9)


def _awake(arm: Arm) -> Arm:
    """The second of two samples: a core that had nothing to do while MLX's one thread worked is slow at first."""

    def second() -> float:
        arm()
        return arm()

    return second


def _mlx_gbps(run: Run, inputs: Sequence[Sequence[mx.array]], nbytes: int) -> Arm:
    """Each call evaluated by itself, as a token's are: they depend on each other."""
    rotation = Rotation(list(inputs))
    for given in rotation.take(len(inputs)):  # makes what MLX wants of the experts before the clock runs
        mx.eval(run(given))

    def arm() -> float:
        (given,) = rotation.take(1)
        start = time.perf_counter()
        mx.eval(run(given))
        return nbytes / (time.perf_counter() - start) / 1e9

    return arm


def _delta(inputs: Sequence[mx.array]) -> list[mx.array]:
    """mlx-lm's own operations for a step of the delta rule, on inputs of one token."""
    *vectors, state = inputs
    y, state = gated_delta_ops(*(vector[:, None] for vector in vectors), state)
    return [y[:, 0], state]


def _difference(kernel: CpuLaunch, op: OpCase, run: Run, inputs: Sequence[mx.array]) -> float:
    """The largest between the kernel's outputs and MLX's, over MLX's largest value; inf where one is not a number."""
    given, outputs = op.sets[0]
    kernel.run(given, outputs)
    worst = []
    for found, (index, wanted) in zip(outputs, enumerate(run(inputs)), strict=True):
        expected = np.array(wanted.astype(mx.float32), dtype=np.float64).reshape(found.shape)
        values = widen(found, op.contract.element_type(op.contract.outputs[index], op.case.constants))
        worst.append(np.abs(values - expected).max() / np.abs(expected).max())
    return float(np.nan_to_num(np.max(worst), nan=np.inf))


def _to_mlx(op: OpCase, inputs: Sequence[Array]) -> list[mx.array]:
    kinds = [op.contract.element_type(tensor, op.case.constants) for tensor in op.contract.inputs]
    arrays = [mx.array(array).view(getattr(mx, kind)) for array, kind in zip(inputs, kinds, strict=True)]
    mx.eval(arrays)
    for array in arrays:
        native.use_huge_pages(array)
    return arrays
