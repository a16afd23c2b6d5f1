"""The configuration of a command: conf/ composed by Hydra with the overrides of the command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from baseline.errors import UsageError
from harness.paths import data_folder


@dataclass
class Io:
    """Types of the fields of `baseline.policy.IoPolicy`; the values are in conf/io."""

    threads: int = 0
    reads_per_expert: int = 0
    cache: str = ""
    schedule: str = ""
    method: str = ""
    stream: str = ""
    prefetch: str = ""


@dataclass
class Judge:
    """Types of the fields of conf/judge, which says what each limit is."""

    kl: float = 0.0
    tie: float = 0.0
    perplexity: float = 0.0
    factor: float = 0.0


@dataclass
class Named:
    """A configuration group whose choice is only a name."""

    name: str = ""


@dataclass
class Proposer:
    """A file of conf/proposer: None for what the chosen one has no use for."""

    name: str = ""
    model: Any = None  # a name, or a list of names
    base_url: str | None = None
    paper: str | None = None
    max_usd: float | None = None
    max_tokens: int | None = None
    repairs: int | None = None
    patience_s: float | None = None
    batch: bool | None = None
    folder: str | None = None
    record: str | None = None


@dataclass
class Config:
    """Types of conf/config.yaml, which says what each option means; the values are there."""

    target: Named = field(default_factory=Named)
    proposer: Proposer = field(default_factory=Proposer)
    io: Io = field(default_factory=Io)
    judge: Judge = field(default_factory=Judge)
    model: str = ""
    golden: str | None = None
    configuration: str | None = None
    dtype: str = ""
    top_k: int | None = None
    layers: int | None = None
    experts: int | None = None
    vocab: int | None = None
    prompt: str = ""
    max_tokens: int = 0
    op: Any = None
    variants: str = ""
    state: str = ""
    minutes: float = 0.0
    candidates: int | None = None
    min_gain: float = 0.0
    timeout_s: float = 0.0
    sandbox: str = ""
    seed: int = 0
    run: str | None = None
    rounds: int = 0
    slice: str | None = None
    out: str | None = None


# Lines of a message that say where in Hydra it went wrong.
DETAILS = ("full_key", "object_type", "reference_type", "Config search", "provider=", "See http")
OF_PROPOSER = ("proposer.base_url", "proposer.paper", "proposer.folder", "proposer.record")
TEXT = ("prompt", "model", "golden", "configuration", "run", "slice", "out", *OF_PROPOSER)
DTYPES = ("float32", "bfloat16", "float16")


def known_keys() -> tuple[str, ...]:
    """What can be overridden: `model`, `io` (the group), `io.threads`, ..."""
    return tuple(_keys(Config))


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    for entry in fields(kind):
        yield prefix + entry.name
        if is_dataclass(entry.type) and entry.type is not Named:
            yield from _keys(entry.type, f"{prefix}{entry.name}.")


def load_config(overrides: Sequence[str]) -> Config:
    """Compose conf/ with `key=value` overrides. UsageError names a key or a value that cannot be."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        _check_key(override)
    # Text is taken as it is: commas, quotes and brackets mean something to Hydra.
    text = dict(o.split("=", 1) for o in overrides if o.partition("=")[0] in TEXT)
    overrides = [o for o in overrides if o.partition("=")[0] not in TEXT]
    try:
        with initialize_config_dir(str(data_folder("conf")), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
        typed = OmegaConf.merge(OmegaConf.structured(Config), composed)
        config: Any = OmegaConf.to_object(typed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error, overrides)) from None
    for name, value in text.items():
        *group, key = name.split(".")
        setattr(getattr(config, group[0]) if group else config, key, None if value == "null" else value)
    return _checked(config)


def _check_key(override: str) -> None:
    key = override.partition("=")[0]
    if key not in known_keys():
        raise UsageError(f"unknown override {key!r}; known are {', '.join(known_keys())}")


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message of many lines as one: what was wrong and, for a group, what there is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    given = next((text for text in overrides if text.partition("=")[0] == key), None)
    shown = [line for line in lines if not line.startswith(DETAILS)]
    return f"{given or ' '.join(overrides)}: {' '.join(shown)}"


def _checked(config: Config) -> Config:
    if config.dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {config.dtype!r}")
    if config.top_k is not None and config.top_k < 1:
        raise UsageError(f"top_k must be 1 or more, got {config.top_k}")
    if config.max_tokens < 1:
        raise UsageError(f"max_tokens must be 1 or more, got {config.max_tokens}")
    return config


def chosen_ops(config: Config, known: Sequence[str]) -> tuple[str, ...]:
    """The `op` option as a tuple: all that are known, one, or a list. The search checks the names."""
    if config.op == "all":
        return tuple(known)
    return (config.op,) if isinstance(config.op, str) else tuple(map(str, config.op or ()))
