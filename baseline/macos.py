"""The sandbox of macOS: a process starts under sandbox-exec, with a profile made of what it may open.

It has not run: only its text is tested. Apple calls sandbox-exec deprecated and ships it nevertheless.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from baseline.confinement import DEVICES, Access

SYSTEM = (  # with Apple's compilers, and where it is noted which of them is used
    *("/System", "/Library", "/Applications", "/opt/homebrew", "/dev", "/private/etc"),
    *("/private/var/db/dyld", "/private/var/db/xcode_select_link", "/private/var/select"),
)
RULES = """(version 1)
(deny default)
(allow process-exec process-fork sysctl-read mach-lookup iokit-open)
(allow signal (target self))
(allow file-read-metadata)
"""


def profile(access: Access) -> str:
    """The profile, in sandbox-exec's language: no network, and files as `access` says, with the system's to read."""
    read = (*SYSTEM, *access.read, *access.write)
    written = (*access.write, *DEVICES)
    return f"{RULES}{_allow('file-read*', read)}{_allow('file-write*', written)}"


def _allow(operation: str, paths: Sequence[str]) -> str:
    rules = "".join(f"\n  (subpath {json.dumps(path, ensure_ascii=False)})" for path in paths)
    return f"(allow {operation}{rules})\n"


def missing() -> str:
    """Why there is no sandbox-exec here, '' where there is."""
    if sys.platform != "darwin":
        return "macOS alone has sandbox-exec"
    return "" if shutil.which("sandbox-exec") else "sandbox-exec: not on the PATH"


def confined(command: Sequence[str], access: Access, folder: Path) -> list[str]:
    """`command` under sandbox-exec where there is one, with the profile in `folder`; elsewhere as it is."""
    if missing():
        return list(command)
    file = folder / "profile.sb"
    file.write_text(profile(access))
    return ["sandbox-exec", "-f", str(file), *command]
