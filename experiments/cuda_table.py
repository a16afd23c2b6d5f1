"""Every kernel on a CUDA device, checked and measured: python -m experiments.cuda_table results/NAME

Each metal and cuda variant is checked at every case of its contract, then measured beside MLX's own operations and
mlx-lm's Metal kernels. Writes README.md, table.tsv and summary.json. Needs numpy, mlx with its CUDA back end,
pyyaml and pydantic, and mlx-lm for its rows; not the native extension.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from baseline.contract import Case, Contract, load_contract
from baseline.mlx_ops import Run, bytes_touched, mlx_runs
from baseline.variant import Choice, Variant, parse_variant
from experiments import cuda_bench, cuda_shipped
from experiments.cuda_bench import Timing, say
from experiments.cuda_check import KERNELS, OPS, ROUNDS_FLOATS, Check, check_all, judge, unexpected
from harness import strict_json


@dataclass(frozen=True)
class Row:
    """One line of table.tsv: a contender at a shape; `of_copy` is the fraction of the measured copy's bandwidth."""

    op: str
    shape: str
    contender: str
    us: float
    gbps: float
    of_copy: float
    of_nominal: float | None
    check: str
    note: str


def main(folder: Path) -> int:
    """Check, measure, write; 3 where a check did not hold."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [path for op in OPS for target in ("metal", "cuda") for path in sorted((KERNELS / op / target).glob("*.*"))]
    checks = check_all(files)
    verdicts = judge(checks) | cuda_shipped.check()
    device = {**_device(), "copy_gbps": cuda_bench.copy_gbps(5), "floor_us": cuda_bench.floor_us(5)}
    say(f"device: {device}")
    rows = [row for op in OPS for row in measure_op(op, files, verdicts, device)]
    write(folder, device, rows, checks, verdicts)
    failed = unexpected(verdicts)
    say(f"{len(verdicts)} variants; judged otherwise than they should be: {failed or 'none'}")
    return 3 if failed else 0


def measure_op(op: str, files: Sequence[Path], verdicts: Mapping[str, str], device: Mapping[str, Any]) -> Iterator[Row]:
    """Rows of the decode shape and of the shape that fills the device."""
    contract = load_contract(KERNELS / op)
    bench = contract.bench[0]
    for shape, case, launches in (("decode", bench, 64), ("full", cuda_bench.full_case(op, bench), 4)):
        inputs = cuda_bench.rotating_inputs(contract, case)
        size = bytes_touched(contract, case)
        runs = {**_variant_runs(contract, case, files, verdicts), **mlx_runs(contract, case)}
        if op == "gated_delta_step":
            runs |= cuda_shipped.delta_runs()
        say(f"measuring {op}, {shape}: {len(runs)} contenders, {len(inputs)} sets of {size / 1e6:.1f} MB")
        for timing in cuda_bench.measure(runs, inputs, size, launches, 9):
            row = _row(op, shape, timing, verdicts, device)
            say(f"  {row.contender}: {row.us:.2f} us, {row.gbps:.0f} GB/s {row.note}")
            yield row
        del inputs, runs
        mx.clear_cache()


def _variant_runs(contract: Contract, case: Case, files: Sequence[Path], verdicts: Mapping[str, str]) -> dict[str, Run]:
    """Those that came through their checks' process: what crashed there would end this one."""
    variants: list[Variant] = []
    for path in files:
        op, target = path.parts[-3:-1]
        verdict = verdicts.get(f"{op}/{target}/{path.stem}", "not checked")
        if op == contract.op and (verdict == "ok" or "exceeds" in verdict):
            variants.append(parse_variant(path, contract))
    fitting = [variant for variant in variants if variant.supports_instance(case.constants)]
    return {f"{v.target}/{v.name}": cuda_bench.variant_run(Choice.defaults(v), contract, case) for v in fitting}


def _row(op: str, shape: str, timing: Timing, verdicts: Mapping[str, str], device: Mapping[str, Any]) -> Row:
    nominal = device["nominal_gbps"]
    return Row(
        op,
        shape,
        timing.name,
        timing.us,
        timing.gbps,
        timing.gbps / device["copy_gbps"],
        timing.gbps / nominal if nominal else None,
        verdicts.get(f"{op}/{timing.name}", ""),
        timing.error,
    )


def _device() -> dict[str, Any]:
    info = mx.device_info(mx.gpu)
    name = str(info.get("device_name", "unknown"))
    nominal = next((gbps for part, gbps in cuda_bench.NOMINAL_GBPS.items() if part in name), None)
    return {"device": name, "mlx": version("mlx"), "nominal_gbps": nominal}


# The record.


def write(
    folder: Path,
    device: Mapping[str, Any],
    rows: Sequence[Row],
    checks: Sequence[Check],
    verdicts: Mapping[str, str],
) -> None:
    """README.md, table.tsv, checks.tsv and summary.json."""
    for name, kind, records in (("table", Row, rows), ("checks", Check, checks)):
        names = [field.name for field in fields(kind)]
        (folder / f"{name}.tsv").write_text(_tsv(names, [asdict(record) for record in records]))
    wrong = {name: verdict for name, verdict in verdicts.items() if verdict != "ok"}
    best = {f"{op} {shape}": _best(rows, op, shape) for op in OPS for shape in ("decode", "full")}
    summary = {**device, "checked": len(verdicts), "cases": len(checks), "wrong": wrong, "fastest": best}
    (folder / "summary.json").write_text(strict_json.dumps(summary))
    (folder / "README.md").write_text(_readme(device, rows, len(checks), verdicts, wrong))


def _best(rows: Sequence[Row], op: str, shape: str) -> dict[str, Any]:
    found = [row for row in rows if (row.op, row.shape) == (op, shape) and not row.note and row.check in ("", "ok")]
    fastest = min(found, key=lambda row: row.us, default=None)
    return asdict(fastest) if fastest else {}


def _tsv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else " ".join(str("" if value is None else value).split())

    return "\n".join(["\t".join(names), *("\t".join(text(row[name]) for name in names) for row in rows)]) + "\n"


def _readme(
    device: Mapping[str, Any], rows: Sequence[Row], cases: int, verdicts: Mapping[str, str], wrong: Mapping[str, str]
) -> str:
    nominal = f"{device['nominal_gbps']} GB/s nominal" if device["nominal_gbps"] else "nominal bandwidth unknown"
    parts = [
        f"# Kernels on {device['device']}",
        f"MLX {device['mlx']}; memory: {nominal}, {device['copy_gbps']:.0f} GB/s by a plain copy (bytes read and"
        " written). Made by `python -m experiments.cuda_table FOLDER`.",
        f"Checks: {len(verdicts) - len(wrong)} of {len(verdicts)} kernels are right in all their cases ({cases})."
        " Metal kernels run through `baseline/targets/msl/cuda_*.h`.",
        "\n".join(f"- {name}: {verdict}" for name, verdict in wrong.items()) or "None is wrong.",
        f"`{ROUNDS_FLOATS}` rounds a float32 activation to half on purpose, and the check has to say so.",
        "Times are medians of interleaved repetitions of one evaluation of many independent launches, divided by their"
        " number, on inputs that rotate through several times the second cache; GB/s count the bytes that any kernel"
        f" must touch. A kernel that does nothing takes {device['floor_us']:.2f} us launched so: a row of `decode` near"
        " that is bound by dispatch, not by the kernel, and `full` (a shape that fills the device) says what the kernel"
        " can do. Independent launches may overlap; a chain of dependent ones takes longer.",
    ]
    for op in OPS:
        for shape in ("decode", "full"):
            parts.append(_markdown(op, shape, [row for row in rows if (row.op, row.shape) == (op, shape)]))
    return "\n\n".join(parts) + "\n"


def _markdown(op: str, shape: str, rows: Sequence[Row]) -> str:
    lines = [f"## {op}, {shape}", "", "| kernel | us | GB/s | of copy | check |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: row.us or float("inf")):
        if row.note:
            lines.append(f"| {row.contender} | | | | {row.note.replace('|', '/')} |")
        else:
            lines.append(
                f"| {row.contender} | {row.us:.2f} | {row.gbps:.0f} | {100 * row.of_copy:.0f} % | {row.check} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
