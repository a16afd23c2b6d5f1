// The program that tells the source lines of a library's code: addr2line, or atos on macOS.
#pragma once

#include <dlfcn.h>

#include <string>
#include <vector>

namespace nightforge {

// Starts the program for a library now, in a process that will not be allowed to start any. Otherwise it is started
// for each question. Without effect on macOS.
void start_symbolizer(const std::string& library);

// What it prints about addresses in `library`: for each a line, those of the functions it was inlined into behind it.
// Nothing where there is no such program.
std::vector<std::string> symbolize(const Dl_info& library, const std::vector<const void*>& addresses);

}  // namespace nightforge
