"""The streamed model against mlx-lm's resident one, and the memory it takes."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchGLU

from baseline import native
from baseline.durable import file_checksum
from baseline.engine import Engine, IoPolicy, load_resident
from baseline.engine.generate import generate
from baseline.errors import CheckError, UsageError
from baseline.pack import pack
from baseline.page_cache import disk_bytes
from tests.models import GPU, TINY_MOE, make_checkpoint
from tests.streamed import LAYOUT, PROMPT, resident_outputs

POLICIES = [
    IoPolicy(threads=threads, reads_per_expert=reads, cache=cache, schedule=schedule)
    for schedule in ("graph", "eager")
    for cache in ("os", "direct", *(() if GPU else ("mapped",)))
    for threads, reads in ((1, 1), (3, 2), (8, 4))
]
POLICIES += [IoPolicy(schedule=schedule, stream="own") for schedule in ("graph", "eager")]
POLICIES += [
    IoPolicy(schedule=schedule, cache=cache, stream=stream, prefetch="previous")
    for schedule, cache, stream in (
        ("graph", "os", "shared"),
        ("graph", "direct", "own"),
        ("eager", "direct", "shared"),
        ("eager", "os", "own"),
    )
]
if native.uring_available():
    POLICIES += [IoPolicy(reads_per_expert=2, cache=cache, method="uring") for cache in ("os", "direct")]


@pytest.mark.parametrize("io", POLICIES, ids=str)
def test_bundled_model_equals_the_resident_one_to_the_last_bit(engine, want, io):
    engine.configure(io=io)
    assert np.array_equal(engine.logits(PROMPT), want[0])
    decoded = engine.decode(PROMPT, 24)
    assert np.array_equal(decoded.logits, want[1])
    assert decoded.tokens == want[1].argmax(-1).tolist() and len(decoded.token_s) == 23


def test_the_checkpoints_own_dtype_streams_too(tiny):
    want = resident_outputs(TINY_MOE, 4, dtype=None)
    engine = Engine.load(tiny, dtype=None)
    assert engine.dtype == mx.bfloat16
    assert np.array_equal(engine.decode(PROMPT, 4).logits, want[1])


@pytest.mark.parametrize("top_k", [1, 4])
def test_top_k_override_is_mlx_lms_model_with_fewer_experts(tiny, engine, want, top_k):
    text = json.loads((TINY_MOE / "config.json").read_text())["text_config"] | {"num_experts_per_tok": top_k}
    fewer, _ = load_resident(TINY_MOE, top_k=top_k)
    assert fewer.language_model.args.num_experts_per_tok == text["num_experts_per_tok"]
    got = Engine.load(tiny, top_k=top_k).decode(PROMPT, 8)
    assert np.array_equal(got.logits, resident_outputs(TINY_MOE, 8, top_k=top_k)[1])
    assert not np.array_equal(got.logits, want[1][:8])


@pytest.mark.parametrize("top_k", [0, 9])
def test_top_k_out_of_range_is_refused(tiny, top_k):
    with pytest.raises(UsageError, match="top_k must be from 1 to the model's 8"):
        Engine.load(tiny, top_k=top_k)


RANDOM = [("qwen3_5_moe", bits, group) for bits in (2, 3, 4, 6, 8) for group in (32, 64, 128)]
RANDOM += [("qwen3_moe", 4, 64), ("qwen3_moe", 3, 32), ("olmoe", 4, 64), ("olmoe", 8, 128), ("qwen3_moe", None, 64)]


@pytest.mark.parametrize("family, bits, group", RANDOM)
def test_random_models_of_other_families_bits_and_groups(tmp_path, family, bits, group):
    checkpoint = make_checkpoint(tmp_path / "model", family, bits, group)
    pack(checkpoint, tmp_path / "packed", LAYOUT)
    prompt, decoded = resident_outputs(checkpoint, 16)
    engine = Engine.load(tmp_path / "packed")
    for schedule in ("graph", "eager"):
        engine.configure(io=IoPolicy(schedule=schedule))
        assert np.array_equal(engine.logits(PROMPT), prompt)
        assert np.array_equal(engine.decode(PROMPT, 16).logits, decoded)


def test_no_expert_stays_in_memory(engine):
    assert not any(isinstance(m, SwitchGLU) for _, m in engine.model.named_modules())
    resident = sum(p.nbytes for _, p in tree_flatten(engine.model.parameters()))
    experts = sum(layer.nbytes for layer in engine.manifest.layers)
    assert resident + experts > 18e6 and resident < 5e6 and experts > 14e6


def test_a_prompt_reads_each_needed_expert_once(engine):
    engine.configure()
    before = engine.usage().read_bytes
    engine.logits(PROMPT)
    read = engine.usage().read_bytes - before
    assert 0 < read <= sum(layer.nbytes for layer in engine.manifest.layers)


def test_a_token_reads_its_experts_and_no_more(engine):
    engine.configure(io=IoPolicy(reads_per_expert=2))
    engine.decode(PROMPT, 1)
    before = engine.usage()
    engine.decode(PROMPT[:1], 5)
    after = engine.usage()
    assert after.read_bytes - before.read_bytes == 5 * 8 * 8 * 28672  # tokens, layers, experts, stride
    assert after.reads - before.reads == 2 * 5 * 8 * 8


def test_no_thread_is_started_while_tokens_are_decoded(engine):
    tasks = Path("/proc/self/task")
    engine.configure(io=IoPolicy(threads=8))
    engine.decode(PROMPT, 2)

    def count() -> int:
        return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()

    before = count()
    engine.decode(PROMPT, 16)
    assert count() == before


@pytest.mark.parametrize(
    "field",
    [
        {"threads": 0},
        {"reads_per_expert": 999},
        {"cache": "lru"},
        {"schedule": 3},
        {"method": "aio"},
        {"prefetch": "next"},
        {"stream": "gpu"},
    ],
)
def test_a_policy_out_of_range_is_refused(field):
    with pytest.raises(UsageError, match=next(iter(field))):
        IoPolicy(**field)


@pytest.mark.parametrize("available", [False, True])
def test_io_uring_is_for_direct_reads_unless_it_is_asked_for(available):
    assert IoPolicy(cache="direct").uring(available) == available
    assert not IoPolicy().uring(available) and not IoPolicy(cache="direct", method="pread").uring(available)
    if available:
        assert IoPolicy(method="uring").uring(available)
    else:
        with pytest.raises(UsageError, match=r"io\.method=uring: .* no io_uring"):
            IoPolicy(method="uring").uring(available)


@pytest.mark.parametrize("schedule", ["graph", "eager"])
@pytest.mark.parametrize("prefetch", ["none", "previous"])
def test_decoding_allocates_no_buffers_once_it_runs(engine, schedule, prefetch):
    engine.configure(io=IoPolicy(schedule=schedule, prefetch=prefetch))
    before, rounds = native.counters()["buffers"], []
    for _ in range(6):
        start = native.counters()["buffers"]
        engine.decode(PROMPT[:1], 12)
        rounds.append(native.counters()["buffers"] - start)
    # How many are in use at once depends on how far MLX runs ahead of its stream: on a busy machine some tokens' worth.
    reads = len(rounds) * 12 * len(engine.experts)
    assert native.counters()["buffers"] - before < reads / 10
    assert 0 in rounds[1:], f"buffers allocated in each round of 12 tokens: {rounds}"


def test_a_file_cut_while_the_engine_runs_is_an_error(tmp_path):
    pack(TINY_MOE, tmp_path / "packed", LAYOUT)
    engine = Engine.load(tmp_path / "packed")
    with (tmp_path / "packed" / "experts" / "layer_05.bin").open("r+b") as file:
        file.truncate(0)
    with pytest.raises(RuntimeError, match=r"layer_05.bin: layer 5, expert \d+: the file ends"):
        engine.logits(PROMPT)
    for stream in ("shared", "own"):
        engine.configure(io=IoPolicy(stream=stream))
        with pytest.raises(RuntimeError, match=r"layer_05.bin: layer 5, expert \d+: the file ends"):
            engine.decode(PROMPT[:1], 2)


def test_a_stream_of_its_own_works_from_any_thread(engine, want):
    engine.configure(io=IoPolicy(stream="own"))
    with ThreadPoolExecutor(1) as pool:
        tokens = pool.submit(lambda: engine.decode(PROMPT, 8).tokens).result()
    assert tokens == want[1][:8].argmax(-1).tolist()


def test_a_changed_config_is_refused(tmp_path):
    pack(TINY_MOE, tmp_path / "packed", LAYOUT)
    config = tmp_path / "packed" / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 8', '"num_hidden_layers": 4'))
    with pytest.raises(CheckError, match=r"config.json is not the file that was packed"):
        Engine.load(tmp_path / "packed")


def test_configuring_again_and_again_leaks_no_descriptor(engine):
    descriptors = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
    engine.configure()
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        engine.configure(io=IoPolicy(cache="direct"))
        engine.decode(PROMPT[:1], 1)
        engine.configure()
    assert len(list(descriptors.iterdir())) <= before + 2


def test_generate_streams_its_text_and_accounts_for_the_time(engine):
    engine.configure()
    pieces: list[str] = []
    done = generate(engine, PROMPT, 12, pieces.append)
    assert "".join(pieces) == done.text and 1 <= len(done.tokens) <= 12 and done.prompt_tokens == len(PROMPT)
    assert done.tokens_per_s > 0 and done.ttft_s > 0 and done.phases["expert_read"] > 0
    assert done.phases["rest"] > 0 and done.read_bytes_per_token > 0


@pytest.mark.skipif(disk_bytes() is None, reason="this system does not say what was read from disks")
@pytest.mark.parametrize(("io", "cached"), [(IoPolicy(), 1.0), (IoPolicy(cache="direct"), 0.0)], ids=["warm", "direct"])
def test_generate_says_how_much_came_from_the_page_cache(engine, io, cached):
    engine.configure(io=io)
    generate(engine, PROMPT, 8)
    assert generate(engine, PROMPT, 8).cached == cached


@pytest.mark.parametrize("prompt, n", [([], 4), ([1], 0)])
def test_generate_refuses_nothing_to_do(engine, prompt, n):
    with pytest.raises(UsageError):
        generate(engine, prompt, n)


MEMORY = """
import json, resource, sys
from pathlib import Path
import mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx.utils import tree_flatten
from baseline.engine import Engine, IoPolicy
engine = Engine.load(Path(sys.argv[1]))
engine.logits(range(64))
for schedule in ("graph", "eager"):
    for prefetch in ("none", "previous"):
        engine.configure(io=IoPolicy(schedule=schedule, threads=8, prefetch=prefetch))
        engine.decode(range(2), 10)
if sys.platform == "linux":  # ru_maxrss would begin at the size of the process that forked this one
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resident = sum(p.nbytes for _, p in tree_flatten(engine.model.parameters()))
print(json.dumps({"peak": peak, "resident": resident, "read": engine.usage().read_bytes}))
"""


def test_peak_rss_stays_within_the_bound_for_a_much_larger_model(tmp_path):
    """The bound of DESIGN: resident weights, two tokens' worth of expert buffers, and 400 MB."""
    layers, experts, top_k = 4, 512, 4
    dims = {"hidden_size": 1024, "moe_intermediate_size": 512, "num_experts_per_tok": top_k}
    small = make_checkpoint(tmp_path / "small", "qwen3_moe", 4, 64, num_hidden_layers=layers, num_experts=8, **dims)
    packed = enlarge(small, tmp_path / "packed", experts)
    stride = json.loads((packed / "manifest.json").read_text())["layers"][0]["stride"]
    done = subprocess.run([sys.executable, "-c", MEMORY, packed], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    bound = used["resident"] + 2 * layers * top_k * stride + 400e6
    assert layers * experts * stride > 3.5 * bound, "the model is too small to show anything"
    assert used["read"] > layers * experts * stride / 4
    assert used["peak"] < bound, f"peak RSS {used['peak'] / 1e6:.0f} MB, bound {bound / 1e6:.0f} MB"


def enlarge(checkpoint: Path, packed: Path, experts: int) -> Path:
    """Pack `checkpoint` and give each layer `experts` experts, the new ones all zeros, and a router as wide."""
    manifest = pack(checkpoint, packed, LAYOUT)
    repeat = experts // manifest.layers[0].experts
    for layer in manifest.layers:
        os.truncate(packed / layer.file, layer.nbytes * repeat)  # a hole, read like anything else
    fields = json.loads(manifest.to_json())
    for layer in fields["layers"]:
        layer["experts"] *= repeat
        layer["checksums"] *= repeat
    weights = mx.load(str(packed / "resident.safetensors"))
    for name in [n for n in weights if ".mlp.gate." in n]:
        weights[name] = mx.concatenate([weights[name]] * repeat)
        if name.endswith("biases"):  # so that each copy of an expert is chosen by some token
            weights[name] = weights[name] + 0.01 * mx.random.normal(weights[name].shape).astype(weights[name].dtype)
    mx.save_safetensors(str(packed / "resident.safetensors"), weights)
    fields["resident"]["nbytes"] = (packed / "resident.safetensors").stat().st_size
    config = json.loads((packed / "config.json").read_text()) | {"num_experts": experts}
    (packed / "config.json").write_text(json.dumps(config))
    fields["files"]["config.json"] = file_checksum(packed / "config.json")
    (packed / "manifest.json").write_text(json.dumps(fields))
    return packed
