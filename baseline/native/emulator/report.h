// What the sanitizer found, and where in the kernel's source.
#pragma once

#include <cstdint>
#include <string>

namespace nightforge {

struct Finding {
  std::string kind;     // "race", "out of bounds", ...
  std::string text;     // what happened, naming the variable and the threads
  std::string file;     // of the kernel's source; "" where no line is to blame
  int line = 0;
  bool operator==(const Finding&) const = default;
};

struct SourceLine {
  std::string file;
  int line = 0;
};

// The line of the kernel's own source that the code at `address` was made from, inlined or not.
SourceLine source_line(const void* address);

}  // namespace nightforge
