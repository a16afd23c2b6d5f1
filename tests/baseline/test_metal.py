"""The engine with the model on an Apple GPU: reads stay on a CPU stream, the rest of the graph runs on the GPU."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from baseline.engine import Engine, IoPolicy, load_resident
from baseline.pack import pack
from tests.baseline.test_engine import LAYOUT, PROMPT
from tests.models import TINY_MOE

pytestmark = [
    pytest.mark.metal,
    pytest.mark.skipif(not mx.metal.is_available(), reason="this machine has no Apple GPU"),
]


@pytest.fixture
def gpu():
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


@pytest.mark.parametrize("schedule", ["graph", "eager"])
@pytest.mark.parametrize("cache", ["os", "direct"])
def test_streamed_logits_are_those_of_the_resident_model(gpu, tmp_path, schedule, cache):
    pack(TINY_MOE, tmp_path / "packed", LAYOUT)
    engine = Engine.load(tmp_path / "packed", dtype=None)
    engine.configure(io=IoPolicy(schedule=schedule, cache=cache))
    decoded = engine.decode(PROMPT[:1], 32)
    model, _ = load_resident(TINY_MOE, dtype=None)
    state = make_prompt_cache(model)
    for token, row in zip([PROMPT[0], *decoded.tokens], decoded.logits, strict=False):
        want = model(mx.array([[token]]), cache=state)[0, -1].astype(mx.float32)
        mx.eval(want)
        assert np.array_equal(np.array(want), row)
