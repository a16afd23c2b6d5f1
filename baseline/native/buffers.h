// The memory that experts are read into: pieces that are aligned to huge pages and used again, so that no token's path
// asks the system for memory or pays for its pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/array.h"

namespace nightforge {

namespace mx = mlx::core;

class BufferPool {
 public:
  static BufferPool& shared();

  // What an array takes by set_data: the bytes begin `offset` bytes into the data, at a multiple of 2 MiB.
  struct Lease {
    mx::allocator::Data data;
    int64_t offset;
  };

  // A buffer of at least `bytes` bytes, of unknown content. It comes back by itself when its last owner is gone.
  Lease take(size_t bytes);

  // How many bytes, taken and idle together, may stay with the pool. More can be taken; they are not kept.
  void set_limit(size_t bytes);

  struct Counters {
    int64_t allocations;  // over the life of the process
    int64_t bytes;        // taken and idle, now
  };
  Counters counters();

 private:
  struct Block {
    mx::allocator::Buffer buffer;
    size_t capacity;
  };

  Block obtain(size_t bytes);
  Block allocate(size_t capacity);
  void give_back(Block block);
  std::vector<Block> evict(size_t coming);

  std::mutex mutex_;
  std::vector<Block> idle_;  // the one used last at the end
  size_t limit_ = size_t{256} << 20;
  size_t bytes_ = 0;
  int64_t allocations_ = 0;
};

// Moves what an evaluated array holds to huge pages, where it fills any and the system has them: a product reads its
// weights an eighth faster then. Nothing happens elsewhere.
void use_huge_pages(const mx::array& array);

}  // namespace nightforge
