"""Where nightforge finds its data, in a checkout and installed, and where it may keep what it makes."""

from pathlib import Path

import baseline
from baseline.paths import cache_folder

__all__ = ["BUNDLED", "bundled_golden", "bundled_model", "cache_folder", "data_folder"]

HERE = Path(__file__).resolve().parent
BUNDLED = "tiny-moe"


def data_folder(name: str) -> Path:
    """`kernels` or `conf`: a wheel carries them inside this package, a checkout beside it."""
    candidates = (HERE / name, HERE.parent / name)
    # An installed package named `kernels` can lie beside this one; what a wheel carries comes first.
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        raise FileNotFoundError(f"this installation of nightforge lacks its {name}: {candidates[0]}")
    return found


def bundled_model() -> Path:
    """The bundled checkpoint, with its held-out texts in `heldout`."""
    return _baseline() / "models" / BUNDLED


def bundled_golden() -> Path:
    """The bundled model's golden record."""
    return _baseline() / "golden" / BUNDLED


def _baseline() -> Path:
    return Path(str(baseline.__file__)).resolve().parent
