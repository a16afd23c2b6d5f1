"""The command line: `nightforge COMMAND [--json] [key=value ...]`."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from baseline.errors import CheckError, UsageError
from harness import commands, strict_json
from harness.config import load_config

USAGE, CHECK, INTERRUPTED = (
    2,
    3,
    130,
)  # exit statuses; 1 is Python's own for a bug of ours, with its traceback
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
# What a disk or its permissions refuse: the user's to mend.
REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.ENOTDIR}


class Parser(argparse.ArgumentParser):
    """argparse, its complaint in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 bad usage, 3 a check did not hold, 130 interrupted."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it logs advice about PyTorch, which is not used
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except UsageError as error:
        return _fail(str(error), USAGE)
    except CheckError as error:
        return _fail(str(error), CHECK)
    except KeyboardInterrupt:
        return _fail("interrupted; what is on disk is kept", INTERRUPTED)
    except BrokenPipeError:  # whoever read standard output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return _fail(f"{error.filename or 'the disk'}: {error.strerror}", USAGE)
    except RuntimeError as error:
        # MLX turns what a primitive throws into a RuntimeError; the native ones mark their own.
        if not str(error).startswith(("expert_read:", "expert_map:", "metal_kernel ")):
            raise
        return _fail(str(error), CHECK)


def _run(argv: list[str]) -> int:
    overrides = [argument for argument in argv if OVERRIDE.match(argument)]
    arguments = parser().parse_args([argument for argument in argv if not OVERRIDE.match(argument)])
    if getattr(arguments, "resume", False):
        overrides = with_recorded(overrides)
    config = load_config(overrides)
    if not arguments.json:
        result = arguments.run(arguments, config)
    else:
        with redirect_stdout(sys.stderr):  # the JSON object is alone on standard output
            result = arguments.run(arguments, config)
        print(strict_json.dumps(result.fields, indent=None), end="")
    if result.failed:
        return _fail(result.failed, CHECK)
    return INTERRUPTED if result.interrupted else 0


def with_recorded(overrides: list[str]) -> list[str]:
    """With what the search in run=FOLDER began with, where `overrides` say nothing else."""
    from harness.run_folder import recorded_overrides

    given = dict(override.split("=", 1) for override in overrides)
    recorded = recorded_overrides(Path(given["run"])) if "run" in given else []
    keys = {override: override.partition("=")[0] for override in recorded}
    return [o for o, key in keys.items() if key not in given and key.partition(".")[0] not in given] + overrides


def _fail(message: str, status: int) -> int:
    print(f"nightforge: {' '.join(message.split())}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The commands that exist."""
    top = Parser(
        prog="nightforge",
        allow_abbrev=False,
        description="Evolves the kernels of a streaming Mixture-of-Experts engine, and runs it.",
        epilog="Every command takes key=value overrides of conf/, as in: nightforge search minutes=30",
    )
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add(verbs, "doctor", "what this machine has: memory, disk, compilers, targets", commands.doctor)
    pack = _add(verbs, "pack", "checkpoint to packed experts, or those to another layout", commands.pack)
    pack.add_argument("src", metavar="SRC", help="folder of an MLX checkpoint, or of a packed model to convert")
    pack.add_argument("dst", metavar="DST", help="folder for the packed model; an interrupted pack is continued")
    how = "how an expert lies in its file: a name, a layout's file, or a candidate.json that has one"
    pack.add_argument("--layout", default="whole_expert", metavar="NAME", help=how)
    pack.add_argument("--verify", action="store_true", help="compare every byte with SRC afterwards")
    synth = _add(
        verbs, "synth", "a random checkpoint in a real model's shapes: layers=... experts=... vocab=...", commands.synth
    )
    synth.add_argument("config", metavar="CONFIG", help="qwen3.5-397b-a17b, qwen3.5-122b-a10b or qwen3.5-35b-a3b")
    synth.add_argument("dst", metavar="DST", help="folder for the checkpoint; an interrupted one is continued")
    _add(verbs, "generate", "text from a packed model: prompt=... max_tokens=...", commands.generate)
    golden = verbs.add_parser("golden", help="record or check a model's golden outputs", allow_abbrev=False)
    deeds = golden.add_subparsers(title="commands", metavar="record|check", required=True)
    _add(deeds, "record", "record what the unmodified model answers", commands.golden_record)
    _add(deeds, "check", "compare the engine's answers with the record", commands.golden_check)
    bench = "kernels, reads and the engine beside the memory, the disk, MLX and llama.cpp: rounds=... op=... slice=..."
    _add(verbs, "bench", bench, commands.bench)
    search = _add(verbs, "search", "search for faster kernels: minutes=... op=... run=...", commands.search)
    search.add_argument("--resume", action="store_true", help="go on with the search in run=FOLDER")
    one = _add(
        verbs, "evaluate", "one kernel file through the judge: is it right, and how much faster?", commands.evaluate
    )
    one.add_argument("file", metavar="FILE", help="a variant; exit status 3 when a stage finds it wrong, else 0")
    again = _add(verbs, "verify", "a search's winner again, from its record alone, on this machine", commands.verify)
    again.add_argument("run_folder", metavar="RUN", help="the folder of a search")
    use = _add(verbs, "apply", "make a search's winner the default of its target and model here", commands.apply)
    use.add_argument("run_folder", metavar="RUN", help="the folder of a search whose winner was confirmed")
    return top


def _add(
    verbs: "argparse._SubParsersAction[Parser]", name: str, summary: str, run: commands.Command
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    verb.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    verb.set_defaults(run=run)
    return verb


if __name__ == "__main__":
    sys.exit(main())
