"""Which proposer a search is asked for, with what that one needs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from baseline.errors import UsageError
from harness.propose.claude.settings import ClaudeSettings

NAMES = ("mutate", "claude", "inbox", "replay", "random")


@dataclass(frozen=True)
class ProposerSettings:
    """The chosen file of conf/proposer. Raises UsageError for a name that is none, or for what that one lacks.

    claude: its settings. folder: the inbox; patience_s: how long an empty one is watched. record: the run that is
    replayed.
    """

    name: str = NAMES[0]
    claude: ClaudeSettings | None = None
    folder: Path | None = None
    patience_s: float = 0.0
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UsageError(f"proposer must be {', '.join(NAMES)}, got {self.name!r}")
        needs = {"claude": self.claude, "inbox": self.folder, "replay": self.record}
        if self.name in needs and needs[self.name] is None:
            what = {"claude": "settings", "inbox": "a folder: proposer.folder=", "replay": "a run: proposer.record="}
            raise UsageError(f"proposer={self.name} needs {what[self.name]}")

    @classmethod
    def given(cls, chosen: Mapping[str, Any]) -> "ProposerSettings":
        """Of the fields of `harness.config.Proposer`. UsageError for what they cannot be."""
        claude = None
        if chosen["name"] == "claude":
            own = {field.name: chosen[field.name] for field in fields(ClaudeSettings)}
            claude = ClaudeSettings(**own | {"paper": _path(own["paper"])})
        return cls(
            chosen["name"], claude, _path(chosen["folder"]), chosen["patience_s"] or 0.0, _path(chosen["record"])
        )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
