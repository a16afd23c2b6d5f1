"""No process of ours imports torch, where it is installed; what else asks for it later is told the truth."""

import os
import subprocess
import sys

import pytest

USE = """
import sys
import {module}
import scipy.stats
print("mlx_lm" in sys.modules, "torch" in sys.modules)
import torch
"""


@pytest.mark.parametrize("module", ["harness.evaluate", "harness.loop", "harness.engine_job", "harness.prepare_job"])
def test_torch_is_left_alone(tmp_path, module):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("print('torch itself')\n")
    (tmp_path / "torch-2.9.0.dist-info").mkdir()
    (tmp_path / "torch-2.9.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0\n")
    command, env = [sys.executable, "-c", USE.format(module=module)], {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True False", "torch itself"]
