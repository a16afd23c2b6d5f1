// What the sanitizer found, and where in the kernel's source.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
  bool operator==(const SourceLine&) const = default;
};

// Where in a kernel's library something happened: the instruction, then those that called its function and so on.
using Place = std::vector<const void*>;

// The lines of the kernel's own source at `place`, innermost first; line 0 where the compiler told none.
std::vector<SourceLine> source_lines(const Place& place);

// The innermost line of the kernel's own source at `place`: what the MSL headers do, the line that calls them does.
SourceLine source_line(const Place& place);

}  // namespace nightforge
