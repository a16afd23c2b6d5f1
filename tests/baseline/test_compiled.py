"""The graph of a token, built once: the same outputs, whatever is configured in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from baseline.engine import Engine, IoPolicy
from baseline.pack import pack
from baseline.variant import Choice, list_variants
from tests.models import TINY_MOE, make_checkpoint
from tests.streamed import KERNELS, LAYOUT, PROMPT

OPS = ("expert_gate_up", "expert_down", "qmatvec", "gated_delta_step")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "packed"
    pack(TINY_MOE, folder, LAYOUT)
    return folder


def choices(name: str) -> dict[str, Choice]:
    variants = {op: {v.name: v for v in list_variants(KERNELS, op, "cpu")} for op in OPS}
    return {op: Choice.defaults(found.get(name, found["plain"])) for op, found in variants.items()}


def configured(engine: Engine, build: Path, name: str = "plain", **io: Any) -> Engine:
    engine.configure(choices(name), IoPolicy(**io), kernels=KERNELS, cache=build)
    return engine


def parts(engine: Engine) -> Iterator[Any]:
    yield from (*engine.blocks, *engine.deltas)


def uncompiled(engine: Engine) -> Engine:
    for part in parts(engine):
        part.compile(False)
    return engine


@pytest.mark.parametrize("cache_of_pages", ["os", "direct", "mapped"])
def test_the_outputs_are_those_of_a_graph_built_for_each_token(tiny: Path, cache: Path, cache_of_pages: str) -> None:
    engine = configured(Engine.load(tiny), cache, cache=cache_of_pages)
    assert list(parts(engine)) and all(part.one is not None for part in parts(engine))
    got = engine.decode(PROMPT, 6).logits
    assert np.array_equal(got, uncompiled(engine).decode(PROMPT, 6).logits)


def test_two_texts_in_turn_keep_their_own_caches(tiny: Path, cache: Path) -> None:
    engine = configured(Engine.load(tiny), cache)
    alone = [engine.decode(prompt, 4).logits for prompt in (PROMPT[:7], PROMPT[9:])]
    steps = [engine.steps(prompt) for prompt in (PROMPT[:7], PROMPT[9:])]
    found = [[next(step) for step in steps] for _ in range(4)]
    for text, wanted in enumerate(alone):
        assert np.array_equal(np.stack([rows[text] for rows in found]), wanted)


def test_another_configuration_is_another_graph(tiny: Path, cache: Path) -> None:
    engine = Engine.load(tiny)
    own = engine.decode(PROMPT, 4).logits
    plain, prescaled = (configured(engine, cache, name).decode(PROMPT, 4).logits for name in ("plain", "prescaled"))
    assert not np.array_equal(plain, prescaled)
    assert np.array_equal(configured(engine, cache).decode(PROMPT, 4).logits, plain)
    engine.configure()
    assert np.array_equal(engine.decode(PROMPT, 4).logits, own)


@pytest.mark.parametrize("io", [{"schedule": "eager"}, {"stream": "own"}])
def test_what_is_no_graph_of_one_thread_is_not_kept(tiny: Path, cache: Path, io: dict[str, str]) -> None:
    engine = configured(Engine.load(tiny), cache, **io)
    assert all(part.one is None for part in parts(engine))
    assert engine.decode(PROMPT, 3).logits.shape[0] == 3


def test_mlxs_own_ops_are_not_compiled(tiny: Path) -> None:
    assert all(part.one is None for part in parts(Engine.load(tiny)))


@pytest.mark.parametrize("family", ["qwen3_moe", "olmoe"])
def test_other_families_blocks_too(family: str, cache: Path, tmp_path: Path) -> None:
    pack(make_checkpoint(tmp_path / "model", family), tmp_path / "packed", LAYOUT)
    engine = Engine.load(tmp_path / "packed")
    engine.configure({"qmatvec": choices("plain")["qmatvec"]}, kernels=KERNELS, cache=cache)
    got = engine.decode(PROMPT, 4).logits
    assert engine.blocks and np.array_equal(got, uncompiled(engine).decode(PROMPT, 4).logits)


def test_a_failed_read_raises_and_the_next_token_is_right(tiny: Path, cache: Path, tmp_path: Path) -> None:
    engine = configured(Engine.load(tiny), cache)
    wanted = engine.decode(PROMPT, 3).logits
    path = tiny / engine.manifest.layers[1].file
    content = path.read_bytes()
    path.write_bytes(content[:4096])
    try:
        with pytest.raises(RuntimeError, match="the file ends"):
            engine.decode(PROMPT[:1], 2)
    finally:
        path.write_bytes(content)
    assert np.array_equal(engine.decode(PROMPT, 3).logits, wanted)
    mx.clear_cache()
