#include "buffers.h"

#include <sys/mman.h>

#include "mlx/device.h"

#if defined(__linux__) && !defined(MADV_COLLAPSE)
#define MADV_COLLAPSE 25  // Linux 6.1; older C libraries do not name it, older kernels refuse it
#endif

namespace nightforge {

constexpr size_t kHuge = size_t{2} << 20;

static size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

static int64_t offset_of(mx::allocator::Buffer buffer) {
  auto address = reinterpret_cast<uintptr_t>(buffer.raw_ptr());
  return round_up(address, kHuge) - address;
}

// The whole huge pages of a range: those that are touched later, and those that the allocator had given out before and
// that have small pages. A GPU's driver manages the pages of its own memory.
static void use_huge_pages(const char* begin, size_t bytes) {
#ifdef MADV_COLLAPSE
  auto first = round_up(reinterpret_cast<uintptr_t>(begin), kHuge);
  auto last = (reinterpret_cast<uintptr_t>(begin) + bytes) / kHuge * kHuge;
  if (first >= last || mx::is_available(mx::Device::gpu)) return;
  // Only advice: where the system has no huge pages to spare, the small ones stay.
  if (madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE) != 0) return;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_COLLAPSE);
#else
  (void)begin, (void)bytes;
#endif
}

void use_huge_pages(const mx::array& array) { use_huge_pages(array.data<char>(), array.nbytes()); }

BufferPool& BufferPool::shared() {
  // Leaked on purpose: arrays give their buffers back while static objects are destroyed.
  static BufferPool* pool = new BufferPool;
  return *pool;
}

BufferPool::Lease BufferPool::take(size_t bytes) {
  Block block = obtain(bytes);
  auto deleter = [this, capacity = block.capacity](mx::allocator::Buffer buffer) { give_back({buffer, capacity}); };
  return {mx::allocator::Data(block.buffer, deleter), offset_of(block.buffer)};
}

// The idle block used last, whose pages are the warmest, among those that fit without wasting half.
BufferPool::Block BufferPool::obtain(size_t bytes) {
  std::unique_lock lock(mutex_);
  for (auto block = idle_.rbegin(); block != idle_.rend(); ++block) {
    if (bytes <= block->capacity && block->capacity / 2 <= bytes) {
      Block found = *block;
      idle_.erase(std::next(block).base());
      return found;
    }
  }
  size_t capacity = round_up(bytes, bytes < kHuge ? 4096 : kHuge);
  auto evicted = evict(capacity);
  bytes_ += capacity;
  allocations_ += 1;
  lock.unlock();
  for (auto& block : evicted) mx::allocator::allocator().free(block.buffer);
  return allocate(capacity);
}

// MLX's own allocator gives memory that its GPUs can read too.
BufferPool::Block BufferPool::allocate(size_t capacity) {
  auto buffer = mx::allocator::allocator().malloc(capacity + kHuge);
  use_huge_pages(static_cast<char*>(buffer.raw_ptr()) + offset_of(buffer), capacity);
  return {buffer, capacity};
}

void BufferPool::give_back(Block block) {
  std::unique_lock lock(mutex_);
  idle_.push_back(block);
  auto evicted = evict(0);
  lock.unlock();
  for (auto& old : evicted) mx::allocator::allocator().free(old.buffer);
}

// Takes out the idle blocks that `coming` more bytes leave no room for, those unused for longest first.
std::vector<BufferPool::Block> BufferPool::evict(size_t coming) {
  size_t count = 0;
  for (; count < idle_.size() && bytes_ + coming > limit_; ++count) bytes_ -= idle_[count].capacity;
  std::vector<Block> evicted(idle_.begin(), idle_.begin() + count);
  idle_.erase(idle_.begin(), idle_.begin() + count);
  return evicted;
}

void BufferPool::set_limit(size_t bytes) {
  std::unique_lock lock(mutex_);
  limit_ = bytes;
  auto evicted = evict(0);
  lock.unlock();
  for (auto& block : evicted) mx::allocator::allocator().free(block.buffer);
}

BufferPool::Counters BufferPool::counters() {
  std::lock_guard lock(mutex_);
  return {allocations_, static_cast<int64_t>(bytes_)};
}

}  // namespace nightforge
