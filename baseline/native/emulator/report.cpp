#include "report.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "symbolizer.h"

namespace nightforge {

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
  std::vector<SourceLine> lines;
  for (auto& text : symbolize(library, place)) {
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
