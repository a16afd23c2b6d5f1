"""The record of all calls of a model that a search made: a JSON object a line, before a call and after its answer."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from harness import json_lines
from harness.ledger import Row
from harness.model_use import model_use
from harness.propose.claude.call import Call
from harness.propose.claude.event import Event, Kind
from harness.propose.claude.price import Usage

SAME = 1e-9  # dollars: what sums in another order may differ by


class Calls:
    """The calls of a run whose ledger is ours. Whatever ends the search, what was asked and paid for is known."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist. A last line that a kill has cut is cut off."""
        self.path = path
        json_lines.mend(path)

    def record(self, call: Call) -> None:
        """Records a call that is to be made, or what came of it, for good. OSError when the disk is full."""
        json_lines.append(self.path, asdict(call))

    def read(self) -> list[Call]:
        """All calls, by number, each as it was recorded last. CheckError names a line that is none."""
        return load_calls(self.path)


def load_calls(path: Path) -> list[Call]:
    """All calls of a record; none when there is no file. CheckError names a line that is none."""
    return [*{call.number: call for call in json_lines.load(path, _call, "call")}.values()]


def unaccounted(calls: Sequence[Call], rows: Sequence[Row], events: Sequence[Event]) -> Iterator[Event]:
    """What calls took that is no candidate's and no event's, an event for each model: a search that was killed, or
    ended by Ctrl-C, did not come to record it."""
    for model in dict.fromkeys(call.model for call in calls):
        own = [call for call in calls if call.model == model]
        usage = sum((call.usage for call in own if call.answered), Usage())
        told = model_use((row for row in rows if row.model == model), (e for e in events if e.model == model))
        read, output = usage.cache_read - told.cached_tokens, usage.output - told.output_tokens
        given = usage.input + usage.cache_write - (told.input_tokens - told.cached_tokens)
        usd = math.fsum(call.usd for call in own) - told.usd
        if given or read or output or usd > SAME:
            left = Usage(input=given, cache_read=read, output=output)
            yield Event(Kind.UNUSED, "the search ended before a candidate accounted for it", left, usd, model)


def _call(record: dict[str, str | float | None]) -> Call:
    usd = math.nan if record["usd"] is None else float(str(record["usd"]))
    usage = Usage(**record["usage"])  # type: ignore[arg-type]
    return Call(int(str(record["number"])), str(record["model"]), usage, usd, bool(record["answered"]))
