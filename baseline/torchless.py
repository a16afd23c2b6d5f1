"""mlx-lm, imported as if there were no torch: transformers, whose tokenizers it uses, imports that wherever it is
installed, which takes each process seconds, and nothing here needs it. To be imported before mlx-lm is."""

import sys

if "torch" not in sys.modules:
    sys.modules["torch"] = None  # type: ignore[assignment]  # how Python says that there is none
    try:
        import mlx_lm.tokenizer_utils  # noqa: F401  transformers asks once, and remembers
    finally:
        del sys.modules["torch"]
