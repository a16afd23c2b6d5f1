"""The raw samples of a confirmation, and the figures that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import pydantic

from harness.candidate import Speedup
from harness.keep import log_ratios, speedup

Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Arms:
    """Seconds of a launch, or tokens/s, of both arms: two a block (ABBA or BAAB), in the order of the blocks."""

    seed: tuple[Positive, ...]
    champion: tuple[Positive, ...]


@dataclass(frozen=True)
class Samples:
    """What `confirmation.json` holds. champion: its id. launch_s: by op, at the bench shape; of all pairs of processes
    one after the other. tokens_per_s: of the decodes of the whole engine."""

    champion: str
    launch_s: Mapping[str, Arms]
    tokens_per_s: Arms

    def ops(self) -> dict[str, Speedup]:
        """The speed-up of each op. ValueError or ArithmeticError for samples of which none can be."""
        return {op: speedup(log_ratios(arms.seed, arms.champion)) for op, arms in self.launch_s.items()}

    def decode(self) -> Speedup:
        """The speed-up of the whole engine; raises as `ops`."""
        return speedup(log_ratios(self.tokens_per_s.champion, self.tokens_per_s.seed))  # speeds: the inverse of times

    def speeds(self) -> tuple[float, float]:
        """Median tokens/s of seed and champion."""
        return median(self.tokens_per_s.seed), median(self.tokens_per_s.champion)
