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

// Whole huge pages only: a small buffer does not grow to one.
static void advise_huge(mx::allocator::Buffer buffer, size_t bytes) {
#ifdef MADV_HUGEPAGE
  // A GPU's driver manages the pages of its own memory.
  if (bytes < kHuge || mx::is_available(mx::Device::gpu)) return;
  // Only advice: without it the buffer has small pages.
  madvise(static_cast<char*>(buffer.raw_ptr()) + offset_of(buffer), bytes / kHuge * kHuge, MADV_HUGEPAGE);
#else
  (void)buffer, (void)bytes;
#endif
}

void use_huge_pages(const mx::array& array) {
#ifdef MADV_COLLAPSE
  if (mx::is_available(mx::Device::gpu)) return;
  auto begin = reinterpret_cast<uintptr_t>(array.data<char>());
  auto end = (begin + array.nbytes()) / kHuge * kHuge;
  begin = round_up(begin, kHuge);
  // The advice is for what the system may do later, if it has no huge pages to spare now.
  if (begin >= end || madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE) != 0) return;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_COLLAPSE);
#else
  (void)array;
#endif
}

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
  advise_huge(buffer, capacity);
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
