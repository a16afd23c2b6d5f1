// `expert_read`: routing-dependent I/O as a lazy MLX primitive. Its input is the router's index array; when MLX
// evaluates it on a CPU stream it reads the chosen experts from the packed file straight into the output's buffer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mlx/array.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"
#include "ring.h"

namespace nightforge {

namespace mx = mlx::core;

// O_DIRECT wants offsets, lengths and addresses in multiples of the block size; a page covers every disk in use.
constexpr int64_t kPage = 4096;

// Totals over the life of the process.
struct ReadCounters {
  std::atomic<int64_t> reads{0};        // that the kernel was asked for
  std::atomic<int64_t> bytes{0};
  std::atomic<int64_t> nanoseconds{0};  // wall time inside expert_read
  std::atomic<int64_t> prefetched_bytes{0};  // of `bytes`, those read ahead
  std::atomic<int64_t> hit_bytes{0};         // of those, the ones that were then needed
};
ReadCounters& read_counters();

// Counts the time of its life as spent in reads.
class ReadClock {
 public:
  ~ReadClock() {
    auto elapsed = std::chrono::steady_clock::now() - start_;
    read_counters().nanoseconds += std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// How a file is read: `threads` threads, each expert in `reads` reads, through io_uring or by pread.
struct ReadMethod {
  int threads;
  int reads;
  bool uring;
};

// One layer's packed experts: `experts` records of `stride` bytes each.
class ExpertFile {
 public:
  ExpertFile(std::string path, int layer, int experts, int64_t stride, bool direct);
  ~ExpertFile();
  ExpertFile(const ExpertFile&) = delete;
  ExpertFile& operator=(const ExpertFile&) = delete;

  // Reads the record of experts[i] to destinations[i]. Nothing writes there after it has returned or thrown.
  // Throws std::runtime_error that names the file, the layer and the expert.
  void read(const std::vector<int>& experts, const std::vector<char*>& destinations, const ReadMethod& method) const;

  int64_t stride() const { return stride_; }
  int experts() const { return experts_; }
  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }

  // Throw std::runtime_error where there is no such expert, or the file does not hold all of them.
  void check_expert(int expert) const;
  void check_size() const;

 private:
  std::vector<Range> split(const std::vector<int>& experts, const std::vector<char*>& destinations, int reads) const;
  void read_range(Range range) const;
  void read_by_ring(const std::vector<Range>& ranges, int threads) const;
  [[noreturn]] void fail(int expert, const std::string& what) const;
  [[noreturn]] void fail(int error, const Range& rest) const;

  std::string path_;
  int layer_;
  int experts_;
  int64_t stride_;
  bool direct_;
  int descriptor_;
};

// A tensor inside each expert's record: `shape` of one expert, `offset` in bytes.
struct Segment {
  mx::Dtype dtype;
  mx::Shape shape;
  int64_t offset;
};

class Prefetch;

class ExpertRead : public mx::Primitive {
 public:
  ExpertRead(mx::Stream stream, std::shared_ptr<ExpertFile> file, std::vector<Segment> segments, ReadMethod method,
             std::shared_ptr<Prefetch> prefetch)
      : Primitive(stream), file_(std::move(file)), segments_(std::move(segments)), method_(method),
        prefetch_(std::move(prefetch)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  const char* name() const override { return "ExpertRead"; }

 private:
  void eval_with_prefetch(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs);

  std::shared_ptr<ExpertFile> file_;
  std::vector<Segment> segments_;
  ReadMethod method_;
  std::shared_ptr<Prefetch> prefetch_;
};

// The experts that `indices` names, as int32 [n]: of an array, and of one that was evaluated.
mx::array flat_indices(const mx::array& indices, mx::Stream stream);
std::vector<int> to_vector(const mx::array& indices);

// Returns [records, segment..., slots]: records is uint32 [n, stride / 4] for n = indices.size(); each segment is
// [n, *shape], a view of the same buffer; expert indices[i] is record slots[i], int32 [n]. No bytes are copied.
// Without a `prefetch` (it may be null) slots are 0 to n - 1, and are left out.
std::vector<mx::array> expert_read(std::shared_ptr<ExpertFile> file, const mx::array& indices,
                                   std::vector<Segment> segments, ReadMethod method,
                                   std::shared_ptr<Prefetch> prefetch, mx::StreamOrDevice s);

}  // namespace nightforge
