"""The sandbox of macOS: a child starts under sandbox-exec, with a profile made of what it may open.

It has not run: only its text is tested. Apple calls sandbox-exec deprecated and ships it nevertheless.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import isolation
from harness.isolation import Access

SYSTEM = ("/System", "/Library", "/private/var/db/dyld", "/private/etc", "/dev", "/opt/homebrew")
RULES = """(version 1)
(deny default)
(allow process-exec process-fork sysctl-read mach-lookup iokit-open)
(allow signal (target self))
(allow file-read-metadata)
"""


def profile(access: Access) -> str:
    """The profile, in sandbox-exec's language: no network, and files as `access` says, with the system's to read."""
    read = (*SYSTEM, *access.read, *access.write)
    written = (*access.write, *isolation.DEVICES)
    return f"{RULES}{_allow('file-read*', read)}{_allow('file-write*', written)}"


def _allow(operation: str, paths: Sequence[str]) -> str:
    rules = "".join(f"\n  (subpath {json.dumps(path, ensure_ascii=False)})" for path in paths)
    return f"(allow {operation}{rules})\n"


def confined(command: Sequence[str], access: Access, scratch: Path) -> list[str]:
    """`command` under sandbox-exec where there is one, with the profile in `scratch`; elsewhere as it is."""
    if sys.platform != "darwin" or isolation.layers().missing:
        return list(command)
    file = scratch / "profile.sb"
    file.write_text(profile(access))
    return ["sandbox-exec", "-f", str(file), *command]
