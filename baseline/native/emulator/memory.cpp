#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace nightforge {

constexpr size_t kPages = 64 << 10;  // a multiple of every page size in use
constexpr size_t kPhases = 64;

Region::Region(std::string name, Role role, size_t bytes, size_t phase)
    : name_(std::move(name)), role_(role), bytes_(bytes) {
  size_t inner = (bytes + kPhases + kPages - 1) / kPages * kPages;
  mapped_ = inner + 2 * kGuard;
  void* mapped = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapped);
  begin_ = mapping_ + kGuard + phase % kPhases;
  if (mprotect(mapping_ + kGuard, inner, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping_, mapped_);
    throw std::bad_alloc();
  }
  if (role != Role::input) cells_.resize(bytes);
}

Region::Region(Region&& other) noexcept
    : name_(std::move(other.name_)),
      role_(other.role_),
      bytes_(other.bytes_),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_(other.mapped_),
      begin_(other.begin_),
      cells_(std::move(other.cells_)) {}

Region::~Region() {
  if (mapping_) munmap(mapping_, mapped_);
}

size_t Region::distance(const void* address) const {
  auto* at = static_cast<const char*>(address);
  if (at < begin_) return begin_ - at;
  return at < begin_ + bytes_ ? 0 : at - (begin_ + bytes_) + 1;
}

void Region::forget() { std::fill(cells_.begin(), cells_.end(), Cell{}); }

void Region::fill(int byte) { std::memset(begin_, byte, bytes_); }

}  // namespace nightforge
