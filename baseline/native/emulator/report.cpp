#include "report.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

namespace nightforge {

static std::string quoted(const char* path) {
  std::string text = "'";
  for (; *path; ++path) text += *path == '\'' ? std::string("'\\''") : std::string(1, *path);
  return text + "'";
}

// The command that prints the source line of each address, those of the functions it was inlined into behind it.
static std::string symbolizer(const Dl_info& library, const Place& place) {
  std::string command;
#if defined(__APPLE__)
  char base[32];
  std::snprintf(base, sizeof base, "%p", library.dli_fbase);
  command = "atos -fullPath -i -o " + quoted(library.dli_fname) + " -l " + base;
#else
  command = "addr2line -i -e " + quoted(library.dli_fname);
#endif
  for (auto* address : place) {
    char number[32];
#if defined(__APPLE__)
    std::snprintf(number, sizeof number, " %p", address);
#else
    auto offset = static_cast<const char*>(address) - static_cast<const char*>(library.dli_fbase);
    std::snprintf(number, sizeof number, " 0x%tx", offset);
#endif
    command += number;
  }
  return command + " 2>/dev/null";
}

// "dir/name.metal:12 (discriminator 3)", or "function (in lib) (dir/name.metal:12)" from atos.
static SourceLine parse(const std::string& text) {
  auto colon = text.rfind(':');
  if (colon == std::string::npos) return {};
  auto before = text.find_last_of("/(", colon);
  auto start = before == std::string::npos ? 0 : before + 1;
  return {text.substr(start, colon - start), std::atoi(text.c_str() + colon + 1)};
}

std::vector<SourceLine> source_lines(const Place& place) {
  Dl_info library;
  if (place.empty() || !dladdr(place[0], &library)) return {};
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(symbolizer(library, place).c_str(), "r"), pclose);
  std::vector<SourceLine> lines;
  char text[4096];
  while (pipe && std::fgets(text, sizeof text, pipe.get())) {
    SourceLine found = parse(text);
    auto extension = std::filesystem::path(found.file).extension();
    bool ours = extension == ".h" || extension == ".cpp" || found.file == "generated";
    if (!ours) lines.push_back(found);
  }
  return lines;
}

SourceLine source_line(const Place& place) {
  for (auto& line : source_lines(place))
    if (line.line > 0) return line;
  return {};
}

}  // namespace nightforge
