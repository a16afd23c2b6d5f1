#include "expert_read.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "buffers.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "pool.h"
#include "prefetch.h"

namespace nightforge {

ReadCounters& read_counters() {
  static ReadCounters counters;
  return counters;
}

static int open_file(const std::string& path, bool direct) {
  int flags = O_RDONLY | O_CLOEXEC;
#ifdef O_DIRECT
  if (direct) flags |= O_DIRECT;
#endif
  int descriptor = open(path.c_str(), flags);
  if (descriptor < 0) {
    throw std::runtime_error("expert_read: " + path + ": cannot open" + (direct ? " for direct reads: " : ": ") +
                             std::strerror(errno));
  }
#ifdef F_NOCACHE
  if (direct) fcntl(descriptor, F_NOCACHE, 1);
#endif
  return descriptor;
}

ExpertFile::ExpertFile(std::string path, int layer, int experts, int64_t stride, bool direct)
    : path_(std::move(path)), layer_(layer), experts_(experts), stride_(stride), direct_(direct) {
  if (experts <= 0 || stride <= 0 || stride % kPage != 0) {
    throw std::invalid_argument("ExpertFile: experts and stride must be positive, and the stride a multiple of " +
                                std::to_string(kPage) + " bytes; got " + std::to_string(experts) + " and " +
                                std::to_string(stride));
  }
  descriptor_ = open_file(path_, direct);
}

ExpertFile::~ExpertFile() { close(descriptor_); }

void ExpertFile::fail(int expert, const std::string& what) const {
  throw std::runtime_error("expert_read: " + path_ + ": layer " + std::to_string(layer_) + ", expert " +
                           std::to_string(expert) + ": " + what);
}

// A read that ended inside a page is continued there, and O_DIRECT refuses that: it was the file's end.
void ExpertFile::fail(int error, const Range& rest) const {
  if (error == RingResult::kEnd || (direct_ && error == EINVAL && rest.offset % kPage != 0)) {
    fail(rest.expert, "the file ends " + std::to_string(rest.bytes) + " bytes too early");
  }
  fail(rest.expert, std::strerror(error));
}

void ExpertFile::check_expert(int expert) const {
  if (expert < 0 || expert >= experts_) fail(expert, "no such expert; the file holds " + std::to_string(experts_));
}

void ExpertFile::check_size() const {
  struct stat status {};
  if (fstat(descriptor_, &status) != 0) fail(0, std::strerror(errno));
  int64_t missing = experts_ * stride_ - status.st_size;
  if (missing > 0) fail(experts_ - 1, "the file ends " + std::to_string(missing) + " bytes too early");
}

void ExpertFile::read(const std::vector<int>& experts, const std::vector<char*>& destinations,
                      const ReadMethod& method) const {
  auto ranges = split(experts, destinations, method.reads);
  if (method.uring) {
    read_by_ring(ranges, method.threads);
  } else {
    Pool::shared().run(ranges.size(), method.threads, [&](int task) { read_range(ranges[task]); });
  }
  read_counters().bytes += experts.size() * stride_;
}

std::vector<Range> ExpertFile::split(const std::vector<int>& experts, const std::vector<char*>& destinations,
                                     int reads) const {
  int64_t pages = stride_ / kPage, parts = std::min<int64_t>(reads, pages);
  std::vector<Range> ranges;
  for (size_t i = 0; i < experts.size(); ++i) {
    int expert = experts[i];
    check_expert(expert);
    for (int64_t part = 0; part < parts; ++part) {
      int64_t begin = pages * part / parts * kPage, end = pages * (part + 1) / parts * kPage;
      ranges.push_back({expert, destinations[i] + begin, expert * stride_ + begin, end - begin});
    }
  }
  return ranges;
}

void ExpertFile::read_range(Range range) const {
  while (range.bytes > 0) {
    ssize_t got = pread(descriptor_, range.destination, range.bytes, range.offset);
    read_counters().reads += 1;
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail(got < 0 ? errno : RingResult::kEnd, range);
    range = {range.expert, range.destination + got, range.offset + got, range.bytes - got};
  }
}

// Direct reads run in the disk, and one thread can ask for all; through the page cache the asking thread copies.
void ExpertFile::read_by_ring(const std::vector<Range>& ranges, int threads) const {
  std::atomic<size_t> next{0};
  int rings = direct_ ? 1 : std::min<int>(threads, ranges.size());
  Pool::shared().run(rings, rings, [&](int) {
    auto result = ring_read(descriptor_, ranges, next, read_counters().reads);
    if (result.error != 0) fail(result.error, result.range);
  });
}

mx::array flat_indices(const mx::array& indices, mx::Stream stream) {
  return mx::contiguous(mx::astype(mx::flatten(indices, stream), mx::int32, stream), false, stream);
}

std::vector<int> to_vector(const mx::array& indices) {
  std::vector<int> experts(indices.size());
  // int32 and uint32 share their representation over all valid expert numbers.
  std::memcpy(experts.data(), indices.data<int32_t>(), experts.size() * sizeof(int));
  return experts;
}

// Makes the segments' outputs views of the records.
static void view_records(std::vector<mx::array>& outputs, const std::vector<Segment>& segments, int64_t stride) {
  mx::array& records = outputs[0];
  for (size_t i = 0; i < segments.size(); ++i) {
    mx::array& view = outputs[i + 1];
    auto strides = view.strides();
    strides[0] = stride / view.itemsize();
    size_t span = view.size() / view.shape(0) + (view.shape(0) - 1) * strides[0];
    bool dense = view.shape(0) == 1;
    view.copy_shared_buffer(records, strides, {dense, dense, false}, span, segments[i].offset / view.itemsize());
  }
}

void ExpertRead::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  if (prefetch_) return eval_with_prefetch(inputs, outputs);
  mx::array& records = outputs[0];
  auto lease = BufferPool::shared().take(records.nbytes());
  records.set_data(std::move(lease.data), records.size(), records.strides(), {true, true, false}, lease.offset);
  view_records(outputs, segments_, file_->stride());
  auto& encoder = mx::cpu::get_command_encoder(stream());
  encoder.set_input_array(inputs[0]);
  encoder.set_output_array(outputs[0]);
  // Its buffer stays out of the pool until the read is done, even if an error on the way drops the array before that.
  encoder.dispatch([file = file_, method = method_, buffer = outputs[0].data_shared_ptr(),
                    indices = mx::array::unsafe_weak_copy(inputs[0]),
                    records = mx::array::unsafe_weak_copy(outputs[0])]() mutable {
    ReadClock clock;
    auto experts = to_vector(indices);
    std::vector<char*> destinations;
    for (size_t i = 0; i < experts.size(); ++i) destinations.push_back(records.data<char>() + i * file->stride());
    file->read(experts, destinations, method);
  });
}

void ExpertRead::eval_with_prefetch(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  auto turn = prefetch_->take(inputs[0].size());
  const mx::array& records = turn->records();
  outputs[0].copy_shared_buffer(records, records.strides(), records.flags(), records.data_size());
  view_records(outputs, segments_, file_->stride());
  mx::array& slots = outputs.back();
  slots.set_data(mx::allocator::malloc(slots.nbytes()));
  auto& encoder = mx::cpu::get_command_encoder(stream());
  encoder.set_input_array(inputs[0]);
  encoder.set_output_array(outputs[0]);
  encoder.dispatch([prefetch = prefetch_, turn, buffer = slots.data_shared_ptr(),
                    indices = mx::array::unsafe_weak_copy(inputs[0]),
                    slots = mx::array::unsafe_weak_copy(slots)]() mutable {
    ReadClock clock;
    prefetch->read(*turn, to_vector(indices), slots.data<int>());
  });
}

void ExpertRead::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error("expert_read runs on a CPU stream; got a GPU stream");
}

static void check_segment(const Segment& segment, int64_t stride) {
  int64_t bytes = size_of(segment.dtype);
  int64_t alignment = bytes;
  for (auto dimension : segment.shape) bytes *= dimension;
  if (segment.offset < 0 || segment.offset % alignment != 0 || segment.offset + bytes > stride) {
    throw std::invalid_argument("expert_read: a segment of " + std::to_string(bytes) + " bytes at offset " +
                                std::to_string(segment.offset) + " does not fit a record of " +
                                std::to_string(stride) + " bytes");
  }
}

std::vector<mx::array> expert_read(std::shared_ptr<ExpertFile> file, const mx::array& indices,
                                   std::vector<Segment> segments, ReadMethod method,
                                   std::shared_ptr<Prefetch> prefetch, mx::StreamOrDevice s) {
  if (method.threads < 1 || method.reads < 1) {
    throw std::invalid_argument("expert_read: threads and reads per expert must be at least 1");
  }
  if (method.uring && !ring_available()) throw std::invalid_argument("expert_read: io_uring is not available here");
  auto stream = mx::to_stream(s, mx::Device::cpu);
  int count = indices.size();
  if (count == 0) throw std::invalid_argument("expert_read: indices name no expert");
  std::vector<mx::Shape> shapes{{count, static_cast<int>(file->stride() / 4)}};
  std::vector<mx::Dtype> dtypes{mx::uint32};
  for (auto& segment : segments) {
    check_segment(segment, file->stride());
    mx::Shape shape{count};
    for (auto dimension : segment.shape) shape.push_back(dimension);
    shapes.push_back(shape);
    dtypes.push_back(segment.dtype);
  }
  if (prefetch) {
    shapes.push_back({count});
    dtypes.push_back(mx::int32);
  }
  auto input = flat_indices(indices, stream);
  auto primitive =
      std::make_shared<ExpertRead>(stream, std::move(file), std::move(segments), method, std::move(prefetch));
  return mx::array::make_arrays(std::move(shapes), dtypes, primitive, {input});
}

}  // namespace nightforge
