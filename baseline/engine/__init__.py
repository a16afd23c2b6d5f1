"""The streaming engine: any mlx-lm Mixture-of-Experts model, with its experts read from disk as tokens need them."""

import baseline.torchless  # noqa: F401  before mlx-lm is
from baseline.engine.engine import Decoded, Engine
from baseline.engine.model import load_resident
from baseline.policy import IoPolicy

__all__ = ["Decoded", "Engine", "IoPolicy", "load_resident"]
