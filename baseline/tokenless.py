"""mlx-lm without tokenizers: transformers takes a process a second to import, and one that only runs a model never asks
for a word. To be imported before mlx-lm is."""

import sys
from types import ModuleType

NAMED = {"transformers": ("PreTrainedTokenizer",), "mlx_lm.tokenizer_utils": ("TokenizerWrapper", "load")}


class Absent:
    """What mlx-lm finds by those names."""


for name, held in NAMED.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(dict.fromkeys(held, Absent))
