"""What the tests of a streamed model share: a prompt, and what mlx-lm's resident model answers."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from baseline.engine import load_resident
from baseline.layout import load_layout
from baseline.variant import Choice, parse_variant
from tests.kernel_call import KERNELS, PACKED_OPS

LAYOUT = load_layout(KERNELS / "layouts" / "whole_expert.yaml")
PROMPT = [(37 * i + 11) % 4900 for i in range(40)]


def resident_outputs(checkpoint: Path, n: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the prompt, and of n greedily decoded tokens, of the unmodified mlx-lm model."""
    model, _ = load_resident(checkpoint, **options)
    prompt = np.array(model(mx.array([PROMPT]))[0].astype(mx.float32))
    cache = make_prompt_cache(model)
    model(mx.array([PROMPT[:-1]]), cache=cache)
    rows, token = [], PROMPT[-1]
    for _ in range(n):
        rows.append(np.array(model(mx.array([[token]]), cache=cache)[0, -1].astype(mx.float32)))
        token = int(rows[-1].argmax())
    return prompt, np.stack(rows)


def defaults(name: str) -> dict[str, Choice]:
    """The variant of this name of each op whose weights are packed, with its default tunables."""
    return {op: Choice.defaults(parse_variant(KERNELS / op / "cpu" / f"{name}.cpp")) for op in PACKED_OPS}
