"""The child's `bench` job: two kernels side by side, alone, on the same inputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import launch
from harness.child import begin

ROTATED_BYTES = 96 << 20  # more than the last-level cache of the machines this is for
MIN_ROTATIONS, MAX_ROTATIONS = 4, 64


@dataclass
class Rotation:
    """Copies of a call's arrays, used in turn, so that no cache holds the next one."""

    copies: list[Any]
    turn: int = 0

    def take(self, count: int) -> list[Any]:
        """The next `count` copies."""
        taken = [self.copies[(self.turn + i) % len(self.copies)] for i in range(count)]
        self.turn += count
        return taken


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Times two arms in ABBA order, each launch on the next of several copies of the inputs and outputs.

    Back come the seconds of a launch in each repetition, by arm. The launches of a repetition and the number of blocks
    are fixed before the first timed one: from the quicker arm and what its clock can time (`repetition_s`), and from
    how long a warm-up block took and `budget_s`, within `blocks` (least, most).
    """
    with np.load(job["inputs"]) as arrays:
        inputs = [arrays[key] for key in job["input_order"]]
    # An output can be as large as the inputs (a state): it too must not stay in a cache. Ones: its pages are there.
    outputs = [np.ones(o["shape"], o["dtype"]) for o in job["outputs"]]
    begin(job, max(call.get("threads", 1) for call in job["arms"].values()))
    arms = {name: launch.load(call) for name, call in job["arms"].items()}
    champion, candidate = arms
    count = min(max(ROTATED_BYTES // max(sum(a.nbytes for a in inputs), 1) + 1, MIN_ROTATIONS), MAX_ROTATIONS)
    rotation = Rotation([arms[champion].place(inputs, outputs) for _ in range(count)])

    def block(launches: int) -> dict[str, list[float]]:
        samples: dict[str, list[float]] = {name: [] for name in arms}
        for name in (champion, candidate, candidate, champion):
            samples[name].append(arms[name].seconds(rotation.take(launches)))
        rotation.take(1)  # so that no arm keeps to the same copies
        return samples

    quickest = min(map(min, block(1).values()))
    launches = max(math.ceil(arms[champion].repetition_s / quickest), 1)
    block_s = launches * sum(map(sum, block(launches).values()))
    least, most = job["blocks"]
    blocks = [block(launches) for _ in range(min(max(int(job["budget_s"] / block_s), least), most))]
    seconds = {name: [s for samples in blocks for s in samples[name]] for name in arms}
    return {"seconds": seconds, "rotations": count, "launches": launches}
