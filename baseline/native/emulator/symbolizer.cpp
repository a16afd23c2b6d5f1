#include "symbolizer.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>

#if defined(__APPLE__)

namespace nightforge {

void start_symbolizer(const std::string&) {}

static std::string quoted(const char* path) {
  std::string text = "'";
  for (; *path; ++path) text += *path == '\'' ? std::string("'\\''") : std::string(1, *path);
  return text + "'";
}

std::vector<std::string> symbolize(const Dl_info& library, const std::vector<const void*>& addresses) {
  char number[32];
  std::snprintf(number, sizeof number, "%p", library.dli_fbase);
  std::string command = "atos -fullPath -i -o " + quoted(library.dli_fname) + " -l " + number;
  for (auto* address : addresses) {
    std::snprintf(number, sizeof number, " %p", address);
    command += number;
  }
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen((command + " 2>/dev/null").c_str(), "r"), pclose);
  std::vector<std::string> lines;
  char text[4096];
  while (pipe && std::fgets(text, sizeof text, pipe.get())) lines.push_back(text);
  return lines;
}

}  // namespace nightforge

#else

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nightforge {

constexpr uint64_t kLast = UINT64_MAX;  // no code has this address: what is printed for it ends an answer

class Symbolizer {
 public:
  explicit Symbolizer(const std::string& library) {
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0) return;
    if (pipe2(out, O_CLOEXEC) != 0) {
      close(in[0]);
      close(in[1]);
      return;
    }
    spawn(library, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    questions_ = fdopen(in[1], "w");
    answers_ = fdopen(out[0], "r");
  }

  ~Symbolizer() {
    if (questions_) std::fclose(questions_);  // it ends with its input
    if (answers_) std::fclose(answers_);
    if (process_ > 0) waitpid(process_, nullptr, 0);
  }

  Symbolizer(const Symbolizer&) = delete;
  Symbolizer& operator=(const Symbolizer&) = delete;

  std::vector<std::string> lines(const std::vector<uint64_t>& offsets) {
    std::vector<std::string> found;
    if (process_ <= 0 || !questions_ || !answers_) return found;
    for (auto offset : offsets) std::fprintf(questions_, "0x%jx\n", static_cast<uintmax_t>(offset));
    std::fprintf(questions_, "0x%jx\n", static_cast<uintmax_t>(kLast));
    std::fflush(questions_);
    char text[4096];
    for (bool last = false; std::fgets(text, sizeof text, answers_);) {
      if (last) return found;
      bool address = text[0] == '0' && text[1] == 'x';
      if (!address) found.push_back(text);
      last = address && std::strtoull(text, nullptr, 16) == kLast;
    }
    return found;
  }

 private:
  void spawn(const std::string& library, int in, int out) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    std::string words[] = {"addr2line", "-a", "-i", "-e", library};  // -a: an answer begins with its address
    char* arguments[6] = {};
    for (int i = 0; i < 5; ++i) arguments[i] = words[i].data();
    if (posix_spawnp(&process_, "addr2line", &actions, nullptr, arguments, environ) != 0) process_ = -1;
    posix_spawn_file_actions_destroy(&actions);
  }

  pid_t process_ = -1;
  FILE* questions_ = nullptr;
  FILE* answers_ = nullptr;
};

static std::mutex mutex;
static std::map<std::string, std::unique_ptr<Symbolizer>> started;

void start_symbolizer(const std::string& library) {
  std::lock_guard lock(mutex);
  auto& symbolizer = started[library];
  if (!symbolizer) symbolizer = std::make_unique<Symbolizer>(library);
}

std::vector<std::string> symbolize(const Dl_info& library, const std::vector<const void*>& addresses) {
  std::vector<uint64_t> offsets;
  for (auto* address : addresses)
    offsets.push_back(static_cast<const char*>(address) - static_cast<const char*>(library.dli_fbase));
  std::lock_guard lock(mutex);
  auto found = started.find(library.dli_fname);
  return found == started.end() ? Symbolizer(library.dli_fname).lines(offsets) : found->second->lines(offsets);
}

}  // namespace nightforge

#endif
