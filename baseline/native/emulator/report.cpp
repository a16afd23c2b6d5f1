#include "report.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

namespace nightforge {

static std::string symbolizer(const Dl_info& library, const void* address) {
  char numbers[64];
#if defined(__APPLE__)
  std::snprintf(numbers, sizeof numbers, "-l %p -i %p", library.dli_fbase, address);
  return std::string("atos -fullPath -o '") + library.dli_fname + "' " + numbers + " 2>/dev/null";
#else
  auto offset = static_cast<const char*>(address) - static_cast<const char*>(library.dli_fbase);
  std::snprintf(numbers, sizeof numbers, "0x%tx", offset);
  return std::string("addr2line -i -e '") + library.dli_fname + "' " + numbers + " 2>/dev/null";
#endif
}

// "dir/name.metal:12 (discriminator 3)", or "function (in lib) (dir/name.metal:12)" from atos.
static SourceLine parse(std::string text) {
  auto colon = text.rfind(':');
  if (colon == std::string::npos) return {};
  auto start = text.find_last_of("/(", colon);
  auto name = text.substr(start == std::string::npos ? 0 : start + 1, colon - (start == std::string::npos ? 0 : start + 1));
  return {name, std::atoi(text.c_str() + colon + 1)};
}

SourceLine source_line(const void* address) {
  Dl_info library;
  if (!dladdr(address, &library)) return {};
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(symbolizer(library, address).c_str(), "r"), pclose);
  char text[4096];
  while (pipe && std::fgets(text, sizeof text, pipe.get())) {
    SourceLine found = parse(text);
    // A function of the MSL headers was inlined: the frame around it is the kernel's.
    if (found.line > 0 && std::filesystem::path(found.file).extension() != ".h") return found;
  }
  return {};
}

}  // namespace nightforge
