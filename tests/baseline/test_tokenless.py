"""A process without tokenizers runs the same model, and has not imported what makes them."""

import json
import subprocess
import sys

from baseline.engine import Engine

USE = """
import json, sys
from pathlib import Path
import baseline.tokenless
from baseline.engine import Engine
made = Engine.load(Path(sys.argv[1])).decode([5, 6, 7], 4)
print(json.dumps([made.tokens, made.logits.tolist(), [m for m in sys.modules if m.startswith("transformers.")]]))
"""


def test_the_model_is_the_same(tiny):
    done = subprocess.run([sys.executable, "-c", USE, str(tiny)], capture_output=True, text=True, check=True)
    tokens, logits, imported = json.loads(done.stdout)
    made = Engine.load(tiny).decode([5, 6, 7], 4)
    assert (tokens, logits) == (made.tokens, made.logits.tolist()) and not imported
