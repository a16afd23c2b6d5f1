"""The search behind results/, a preset of `nightforge search`: python -m experiments.search [key=value ...]"""

import sys

from harness.cli import main

PRESET = ("search", "seed=0", "minutes=3", "min_gain=0.02", "op=all")

if __name__ == "__main__":
    sys.exit(main([*PRESET, *sys.argv[1:]]))
