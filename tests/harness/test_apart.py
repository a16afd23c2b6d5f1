"""The engine's figures of a confirmation: neither arm's code is where the other runs."""

import dataclasses
import sys

import psutil
import pytest

from baseline.manifest import load_manifest
from baseline.variant import parse_variant
from harness import confirm, decodes, targets
from harness.candidate import KernelSpec
from harness.conversation import Conversation
from harness.judge import Judge
from harness.loop import seed_candidate
from harness.progress import Silent
from harness.settings import SearchSettings
from harness.shelf import usable_variants
from tests.harness.short_runs import PLAN
from tests.harness.variants import RIGHT, write_variant

APART = dataclasses.replace(PLAN, apart=True)
SLOWED = "the champion was slowed down"
# In the engine, has each entry of the champion's library jump to one that waits and then calls our own.
SLOWS_THE_CHAMPION = (
    r"""// helpers
#include <cstdio>
#include <cstring>
#include <ctime>
#include <dlfcn.h>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/mman.h>
#include <utility>
static void redirect(void* from, void* to) {
    auto at = reinterpret_cast<std::uintptr_t>(from), page = at & ~std::uintptr_t(4095);
    mprotect(reinterpret_cast<void*>(page), 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
#if defined(__x86_64__)
    unsigned char jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
    std::memcpy(jump + 2, &to, 8);
#else
    unsigned char jump[16] = {0x50, 0, 0, 0x58, 0, 0x02, 0x1f, 0xd6};
    std::memcpy(jump + 8, &to, 8);
#endif
    std::memcpy(from, jump, sizeof jump);
    __builtin___clear_cache(static_cast<char*>(from), static_cast<char*>(from) + sizeof jump);
}
using Entry = void (*)(const void* const*, void* const*, const long*, int, int);
static Entry own[8];
template <int I>
static void slower(const void* const* in, void* const* out, const long* dims, int thread, int n_threads) {
    static const bool said = std::fputs("SLOWED\n", stderr) >= 0;
    timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    const long until = end.tv_sec * 1000000000L + end.tv_nsec + 500000 * said;
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while (now.tv_sec * 1000000000L + now.tv_nsec < until);
    own[I](in, out, dims, thread, n_threads);
}
template <int... I>
static void redirect_all(void* library, std::integer_sequence<int, I...>) {
    static const Entry slow[] = {slower<I>...};
    for (int i = 0; i < int(sizeof...(I)); ++i)
        if (void* entry = dlsym(library, ("qmatvec_" + std::to_string(i)).c_str()))
            redirect(entry, reinterpret_cast<void*>(slow[i]));
}
static std::string content(const char* path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}
// Where the process lists the libraries that it may load: its job, which the command line ends with.
static std::string job() {
    std::string line = content("/proc/self/cmdline");
    const auto end = line.find("engine.job.json");
    if (end == line.npos) return "";
    line.resize(end + 15);
    return content(line.c_str() + line.rfind('\0', end) + 1);
}
static bool sabotage() {
    const std::string text = job();
    const auto name = text.find("/qmatvec-plain-");
    if (name == text.npos) return false;
    const auto begin = text.rfind('"', name) + 1;
    Dl_info self;
    dladdr(reinterpret_cast<void*>(&sabotage), &self);
    // Both stay loaded, whatever the engine is configured with.
    void* library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NODELETE);
    for (int i = 0; i < 8; ++i)
        own[i] = reinterpret_cast<Entry>(dlsym(library, ("qmatvec_" + std::to_string(i)).c_str()));
    void* victim = dlopen(text.substr(begin, text.find('"', name) - begin).c_str(), RTLD_NOW | RTLD_NODELETE);
    redirect_all(victim, std::make_integer_sequence<int, 8>());
    return true;
}
// body
static const bool done = sabotage();
(void)done;
""".replace("SLOWED", SLOWED)
    + RIGHT
)


@pytest.fixture
def judge(tmp_path, packed, golden, cache, kernels):
    """One whose ops have the plain kernels."""
    settings = SearchSettings(tmp_path / "run", packed, kernels, cache, golden, ops=("qmatvec",))
    target = targets.here("cpu")
    return Judge(settings, target, usable_variants(settings, target), Silent(), tmp_path)


@pytest.fixture
def seed(judge):
    return seed_candidate(judge.variants, judge.settings.io).configuration


def logs(folder):
    return "".join(path.read_text() for path in folder.rglob("engine.log"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel finds its victim through /proc")
def test_a_kernel_that_slows_the_champion_in_the_engine_shows_its_true_figure(judge, seed, kernels, tmp_path):
    path = write_variant(kernels, "slows", SLOWS_THE_CHAMPION, bits="2, 4, 8")
    judge.variants["qmatvec"]["slows"] = parse_variant(path)
    candidate = seed.with_kernel("qmatvec", KernelSpec("slows", {"THREADS": 2}))
    found = {}
    for plan in (PLAN, APART):
        folder = tmp_path / f"apart-{plan.apart}"
        folder.mkdir()
        found[plan.apart] = judge.engine(candidate, seed, folder, judge.golden.quick(), plan)
        assert found[plan.apart].right and found[plan.apart].apart is plan.apart, found[plan.apart].failure
        assert (SLOWED in logs(folder)) is not plan.apart
    assert found[False].speedup.value > 2 * found[True].speedup.value


def test_a_confirmation_decodes_apart():
    assert confirm.ENGINE.apart


# Keeps its process busy whenever it waits for a command, so that another that is measured has half of a core less.
SPINS = (
    r"""// helpers
#include <dlfcn.h>
static const char script[] = R"(
import select, sys
listening = sys.modules.get('harness.listening')
if listening and 'harness.engine_job' in sys.modules and not hasattr(listening, 'own'):
    listening.own = say = listening._say
    def busy(answers, answer):
        say(answers, answer)
        while not select.select([sys.stdin], [], [], 0)[0]:
            sum(range(10000))
    listening._say = busy
)";
__attribute__((constructor)) static void early() {
    void* program = dlopen(nullptr, RTLD_NOW);
    auto enter = reinterpret_cast<int (*)()>(dlsym(program, "PyGILState_Ensure"));
    auto run = reinterpret_cast<int (*)(const char*, void*)>(dlsym(program, "PyRun_SimpleStringFlags"));
    auto leave = reinterpret_cast<void (*)(int)>(dlsym(program, "PyGILState_Release"));
    if (!enter || !run || !leave) return;
    const int state = enter();
    run(script, nullptr);
    leave(state);
}
// body
"""
    + RIGHT
)


def test_a_process_that_is_not_asked_uses_no_core(judge, seed, kernels, tmp_path, monkeypatch):
    """However it would, while the other is measured."""
    path, used = write_variant(kernels, "spins", SPINS, bits="2, 4, 8"), []

    class Watched(Conversation):
        def clocked(self, what, **arguments):
            others = [psutil.Process(child.pid) for child in alive if child is not self]
            before = [sum(other.cpu_times()[:2]) for other in others]
            found = super().clocked(what, **arguments)
            used.extend(sum(other.cpu_times()[:2]) - then for other, then in zip(others, before, strict=True))
            return found

        def ready(self):
            super().ready()
            alive.append(self)

        def close(self):
            alive[:] = [child for child in alive if child is not self]
            super().close()

    alive = []
    monkeypatch.setattr(decodes, "Conversation", Watched)
    judge.variants["qmatvec"]["spins"] = parse_variant(path)
    candidate = seed.with_kernel("qmatvec", KernelSpec("spins", {"THREADS": 2}))
    result = judge.engine(candidate, seed, tmp_path, judge.golden.quick(), APART)
    assert result.right and result.apart, result.failure
    assert len(used) > 10 and sum(used) == 0


def test_each_process_has_one_arm_and_no_question(judge, seed, tmp_path, monkeypatch):
    jobs = []

    class Seen(Conversation):
        def __init__(self, job, who, folder, timeout_s, native):
            jobs.append((who, {*job["arms"]}, "questions" in job))
            super().__init__(job, who, folder, timeout_s, native=native)

    monkeypatch.setattr(decodes, "Conversation", Seen)
    result = judge.engine(seed, seed, tmp_path, judge.golden.quick(), APART)
    assert result.apart and len(result.candidate_tokens_per_s) == 6 and result.cache_use is not None
    both = ("champion", "candidate")
    assert jobs == [(both, {*both}, True), *((((arm,)), {arm}, False) for arm in both)]


def test_two_engines_that_do_not_fit_share_one(judge, seed, tmp_path, monkeypatch):
    resident = load_manifest(judge.settings.packed).resident.nbytes
    monkeypatch.setattr(decodes, "memory_bytes", lambda: 4 * (resident + decodes.ENGINE_BYTES))
    assert decodes.fit_twice(judge.settings.packed)
    monkeypatch.setattr(decodes, "memory_bytes", lambda: 4 * (resident + decodes.ENGINE_BYTES) - 1)
    result = judge.engine(seed, seed, tmp_path, judge.golden.quick(), APART)
    assert result.right and result.speedup is not None and not result.apart
