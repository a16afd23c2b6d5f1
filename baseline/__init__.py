"""What candidates are judged against: the streaming engine, its kernels' targets and the golden record."""

import sys

# transformers, whose tokenizers mlx-lm uses, imports torch wherever it is installed, which takes each process seconds.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # how Python says that there is none
