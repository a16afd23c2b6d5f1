// How fast all cores together read memory: the most that a kernel whose weights come from memory can get.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <vector>

using Clock = std::chrono::steady_clock;
static constexpr std::size_t kBlock = 1 << 17;  // words of a block: 1 MiB
static constexpr int kLanes = 64;               // independent sums, so that no addition waits for another

static std::uint64_t sum(const std::uint64_t* words) {
  std::uint64_t lanes[kLanes] = {};
  for (std::size_t i = 0; i < kBlock; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += words[i + lane];
  std::uint64_t total = 0;
  for (auto value : lanes) total += value;
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
    while (Clock::now() < end) total += sum(words + next++ % blocks * kBlock);
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
