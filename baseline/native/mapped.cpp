#include "mapped.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "buffers.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/device.h"
#include "mlx/ops.h"

namespace nightforge {

#ifdef __APPLE__
using Presence = char;
#else
using Presence = unsigned char;
#endif

// MLX's CPU allocator writes the size of an allocation in front of it, and looks for it there. So a page of our own
// lies before the mapped file, with that size; the records begin where the page ends.
static mx::allocator::Data map_behind_header(int descriptor, size_t bytes, const std::string& path) {
  const size_t total = kPage + bytes;
  void* begin = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (begin == MAP_FAILED) throw std::runtime_error("expert_map: " + path + ": " + std::strerror(errno));
  *static_cast<size_t*>(begin) = total - sizeof(size_t);
  auto unmap = [total](mx::allocator::Buffer buffer) { munmap(buffer.ptr(), total); };
  mx::allocator::Data data(mx::allocator::Buffer(begin), unmap);
  if (mmap(static_cast<char*>(begin) + kPage, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
    throw std::runtime_error("expert_map: " + path + ": cannot be mapped: " + std::strerror(errno));
  }
  return data;
}

MappedExperts::MappedExperts(std::shared_ptr<ExpertFile> file) : file_(std::move(file)) {
  // A GPU's allocator would have to make buffers of its own of this memory.
  if (mx::is_available(mx::Device::gpu)) throw std::invalid_argument("expert_map: MLX must be its CPU build");
  file_->check_size();
  int experts = file_->experts();
  mx::array records({experts, static_cast<int>(file_->stride() / 4)}, mx::uint32, nullptr, {});
  auto data = map_behind_header(file_->descriptor(), experts * file_->stride(), file_->path());
  records.set_data(std::move(data), records.size(), records.strides(), {true, true, false}, kPage - sizeof(size_t));
  records.set_status(mx::array::Status::available);
  records_ = std::move(records);
}

void MappedExperts::make_resident(const std::vector<int>& experts, int threads) const {
  for (int expert : experts) {
    file_->check_expert(expert);
    if (!resident(expert)) read_through(expert, threads);
  }
}

bool MappedExperts::resident(int expert) const {
  std::vector<Presence> pages(file_->stride() / kPage);
  auto address = const_cast<char*>(records_->data<char>()) + expert * file_->stride();
  if (mincore(address, file_->stride(), pages.data()) != 0) return false;
  return std::all_of(pages.begin(), pages.end(), [](Presence page) { return page & 1; });
}

// The copy is thrown away: what stays is in the page cache.
void MappedExperts::read_through(int expert, int threads) const {
  auto lease = BufferPool::shared().take(file_->stride());
  mx::array copy({static_cast<int>(file_->stride() / 4)}, mx::uint32, nullptr, {});
  copy.set_data(std::move(lease.data), copy.size(), copy.strides(), {true, true, false}, lease.offset);
  file_->read({expert}, {copy.data<char>()}, {.threads = threads, .reads = threads, .uring = false});
}

void ExpertMap::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  mx::array& slots = outputs[0];
  slots.set_data(mx::allocator::malloc(slots.nbytes()));
  auto& encoder = mx::cpu::get_command_encoder(stream());
  encoder.set_input_array(inputs[0]);
  encoder.set_output_array(slots);
  encoder.dispatch([experts = experts_, threads = threads_, buffer = slots.data_shared_ptr(),
                    indices = mx::array::unsafe_weak_copy(inputs[0]),
                    slots = mx::array::unsafe_weak_copy(slots)]() mutable {
    ReadClock clock;
    auto chosen = to_vector(indices);
    experts->make_resident(chosen, threads);
    std::copy(chosen.begin(), chosen.end(), slots.data<int>());
  });
}

void ExpertMap::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error("expert_map runs on a CPU stream; got a GPU stream");
}

mx::array expert_map(std::shared_ptr<MappedExperts> experts, const mx::array& indices, int threads,
                     mx::StreamOrDevice s) {
  if (threads < 1) throw std::invalid_argument("expert_map: threads must be at least 1");
  auto stream = mx::to_stream(s, mx::Device::cpu);
  auto input = flat_indices(indices, stream);
  auto primitive = std::make_shared<ExpertMap>(stream, std::move(experts), threads);
  return mx::array({static_cast<int>(indices.size())}, mx::int32, primitive, {input});
}

}  // namespace nightforge
