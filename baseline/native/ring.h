// Reads through io_uring: one thread keeps the disk as deep as it takes. Built where liburing is.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace nightforge {

// Bytes of a file and where they go; `expert` is only for messages.
struct Range {
  int expert;
  char* destination;
  int64_t offset;
  int64_t bytes;
};

// What became of a batch: 0, or the errno of the first range that failed; kEnd where the file was too short.
struct RingResult {
  static constexpr int kEnd = -1;
  int error = 0;
  Range range{};  // what was still to be read of it
};

// Whether this build has liburing and the kernel lets this process use it.
bool ring_available();

// Takes ranges[next++] until none is left, and reads them with this thread's ring. No read is in flight when it
// returns, whatever the result. `calls` counts the reads submitted. Throws std::runtime_error where no ring can be made.
RingResult ring_read(int descriptor, const std::vector<Range>& ranges, std::atomic<size_t>& next,
                     std::atomic<int64_t>& calls);

}  // namespace nightforge
