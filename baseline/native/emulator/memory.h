// The memory that a kernel may use, and what each byte of it went through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nightforge {

// How far an index may be off and still lie nearer to its own region than to another.
constexpr size_t kGuard = 32 << 20;

enum class Role { input, output, threadgroup };

// The last accesses to one byte. A time is the run's clock, 0 for never; `pc` is where in the kernel's code.
struct Cell {
  uint32_t write_time = 0, read_time = 0;
  uint32_t write_pc = 0, read_pc = 0;
  uint16_t writer = 0, reader = 0;
};

// Bytes in the middle of pages that nobody may touch, so wide that an index that is somewhat off still lies nearer to
// its own region than to another.
class Region {
 public:
  // `phase` is the first byte's address modulo 64.
  Region(std::string name, Role role, size_t bytes, size_t phase);
  ~Region();
  Region(Region&& other) noexcept;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  char* begin() const { return begin_; }
  size_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }
  Role role() const { return role_; }
  bool holds(const void* address) const { return offset(address) < bytes_; }
  size_t offset(const void* address) const { return static_cast<const char*>(address) - begin_; }
  size_t distance(const void* address) const;  // bytes to the nearest edge
  Cell& cell(const void* address) { return cells_[offset(address)]; }
  const std::vector<Cell>& cells() const { return cells_; }
  void forget();            // nothing was accessed yet
  void fill(int byte);

  bool initialised = false;  // an output that starts with a value

 private:
  std::string name_;
  Role role_;
  size_t bytes_;
  char* mapping_ = nullptr;
  size_t mapped_ = 0;
  char* begin_ = nullptr;
  std::vector<Cell> cells_;  // none for an input: every write to it is a finding
};

}  // namespace nightforge
