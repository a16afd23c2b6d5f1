// How fast all cores together read memory, and the disk: the most that a kernel or a reader of experts can get.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <new>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;
static constexpr std::size_t kBlock = 1 << 17;  // words of a block: 1 MiB
static constexpr int kLanes = 64;               // independent sums, so that no addition waits for another

static std::uint64_t sum(const std::uint64_t* words, std::size_t count) {
  std::uint64_t lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += words[i + lane];
  std::uint64_t total = 0;
  for (auto value : lanes) total += value;
  for (; i < count; ++i) total += words[i];
  return total;
}

// Starts `work` on each thread and waits for all.
static void on_all(int threads, const std::function<void()>& work) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (auto& other : others) other.join();
}

// Bytes per second. Threads take the next block until the time is over: none waits for a slower one.
static double one_round(const std::uint64_t* words, std::size_t blocks, int threads, double seconds) {
  std::atomic<std::size_t> next{0};
  std::atomic<std::uint64_t> sink{0};
  const auto start = Clock::now();
  const auto end = start + std::chrono::duration<double>(seconds);
  on_all(threads, [&] {
    std::uint64_t total = 0;
    while (Clock::now() < end) total += sum(words + next++ % blocks * kBlock, kBlock);
    sink += total;
  });
  const std::chrono::duration<double> took = Clock::now() - start;
  return static_cast<double>(next * kBlock * sizeof(std::uint64_t)) / took.count() + (sink == 1 ? 1e-9 : 0);
}

// The best of `rounds`; 0 where there is no room for the buffer. Pages are written first: Linux maps all that were
// not to one page of zeros, which lies in the cache.
extern "C" double read_bandwidth(std::size_t bytes, int threads, double seconds, int rounds) {
  const std::size_t blocks = std::max<std::size_t>(bytes / (kBlock * sizeof(std::uint64_t)), 1);
  std::unique_ptr<std::uint64_t[]> words(new (std::nothrow) std::uint64_t[blocks * kBlock]);
  if (!words) return 0;
  std::atomic<std::size_t> next{0};
  on_all(threads, [&] {
    for (std::size_t block; (block = next++) < blocks;) std::fill_n(&words[block * kBlock], kBlock, block + 2);
  });
  double best = 0;
  for (int round = 0; round < rounds; ++round) best = std::max(best, one_round(words.get(), blocks, threads, seconds));
  return best;
}

// The entry point of a CPU kernel: adds up dims[0] blocks, the one at in[i] of dims[1 + i] words. The threads take the
// next block from the count in out[0], and add to the sum in out[1]: both are zero before.
extern "C" void read_memory(const void* const* in, void* const* out, const long* dims, int, int) {
  std::atomic_ref<long> next(*static_cast<long*>(out[0]));
  std::uint64_t total = 0;
  for (long i = next++; i < dims[0]; i = next++) total += sum(static_cast<const std::uint64_t*>(in[i]), dims[1 + i]);
  std::atomic_ref<std::uint64_t>(*static_cast<std::uint64_t*>(out[1])) += total;
}

// Reads `count` blocks of `size` bytes at `offsets` into the `places` of `memory` in turn, as many at a time as there are
// threads. Blocks that a reader wants to keep lie side by side: one that is overwritten by the next stays in the cache,
// and comes sooner. The seconds from when all threads are ready; an error number, negative, where a read fails or ends
// early.
extern "C" double read_disk(int file, const long* offsets, long count, long size, int threads, char* memory,
                            long places) {
  std::atomic<long> next{0};
  std::atomic<int> failure{0};
  std::latch ready(threads + 1);
  auto read = [&] {
    ready.arrive_and_wait();
    for (long i = next++; i < count && !failure; i = next++) {
      ssize_t got;
      do got = pread(file, memory + i % places * size, size, offsets[i]);
      while (got < 0 && errno == EINTR);
      if (got != size) failure = got < 0 ? errno : EIO;
    }
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < threads; ++i) readers.emplace_back(read);
  ready.arrive_and_wait();
  const auto start = Clock::now();
  for (auto& reader : readers) reader.join();
  const std::chrono::duration<double> took = Clock::now() - start;
  return failure ? -failure : took.count();
}
