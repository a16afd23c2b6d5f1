"""Ledger rows for tests."""

from dataclasses import replace
from typing import Any

from harness.candidate import Stage, Status
from harness.ledger import Row

ROW = Row(
    id="0123456789ab",
    parent="",
    proposer="mutate",
    status=Status.KEPT,
    stage=Stage.ENGINE,
    reason="",
    op="qmatvec",
    variant="vector",
    tunables='{"ROWS": 4}',
    code="0123456789abcdef",
    speedup=2.0,
    speedup_low=1.9,
    speedup_high=2.1,
    engine_speedup=1.1,
    engine_speedup_low=1.0,
    engine_speedup_high=1.2,
    build_s=1.0,
    check_s=0.5,
    bench_s=2.0,
    engine_s=8.0,
    seconds=11.5,
    elapsed_s=20.0,
    model="",
    input_tokens=0,
    cached_tokens=0,
    output_tokens=0,
    usd=0.0,
    hypothesis="wider loads",
)


def row(**changes: Any) -> Row:
    """`ROW` with some fields changed."""
    return replace(ROW, **changes)
