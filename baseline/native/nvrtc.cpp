// Keeps what NVRTC compiles for MLX, whose cache of compiled kernels takes no custom ones, though it looks for them.
//
// Nothing that is kept is launched: MLX gets an error in its place. Loaded with RTLD_GLOBAL before MLX is, this module's
// functions are found in place of NVRTC's and call those. It links to neither: NVRTC's few types are written out, and a
// machine without it builds this as well.

#include <dlfcn.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>

namespace {

constexpr const char *kLibrary = "libnvrtc.so.13"; // that of MLX's package mlx-cuda-13
constexpr int kStopped = 11;                       // NVRTC_ERROR_INTERNAL_ERROR, as which MLX then reports it

struct Program {
    std::string module; // as MLX's cache names it
    std::string names;  // of its functions, each with a tab and its mangled name
};

// MLX compiles one program at a time.
std::map<void *, Program> programs;
std::filesystem::path folder;

template <class Function> Function *nvrtc(const char *name) {
    static void *library = dlopen(kLibrary, RTLD_LAZY | RTLD_NOLOAD);
    void *found = library ? dlsym(library, name) : nullptr;
    if (!found) throw std::runtime_error(std::string(kLibrary) + " is not loaded, or lacks " + name);
    return reinterpret_cast<Function *>(found);
}

void write(const std::string &name, const char *content, size_t size) {
    std::filesystem::create_directories(folder);
    std::ofstream file(folder / name, std::ios::binary);
    file.write(content, static_cast<std::streamsize>(size));
    file.close();
    if (!file) throw std::runtime_error("cannot write " + (folder / name).string());
}

} // namespace

#define REPLACES extern "C" [[gnu::visibility("default")]]

REPLACES int nvrtcCreateProgram(void **program, const char *source, const char *name, int count, const char *const *headers,
                                const char *const *includes) {
    const auto create = nvrtc<decltype(nvrtcCreateProgram)>("nvrtcCreateProgram");
    const int result = create(program, source, name, count, headers, includes);
    if (result == 0) programs[*program] = {std::filesystem::path(name).stem().string(), ""};
    return result;
}

REPLACES int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) {
    const int result = nvrtc<decltype(nvrtcGetLoweredName)>("nvrtcGetLoweredName")(program, name, lowered);
    if (result == 0) programs[program].names += std::string(name) + "\t" + *lowered + "\n";
    return result;
}

// The last that MLX asks of a program that was compiled.
REPLACES int nvrtcGetCUBIN(void *program, char *code) {
    size_t size = 0;
    int result = nvrtc<int(void *, size_t *)>("nvrtcGetCUBINSize")(program, &size);
    if (result == 0) result = nvrtc<decltype(nvrtcGetCUBIN)>("nvrtcGetCUBIN")(program, code);
    if (result != 0 || folder.empty()) return result;
    const Program &made = programs[program];
    write(made.module + ".ptx", code, size); // MLX gives what is no PTX this name as well
    write(made.module + ".txt", made.names.data(), made.names.size());
    return kStopped;
}

REPLACES int nvrtcDestroyProgram(void **program) {
    programs.erase(*program);
    return nvrtc<decltype(nvrtcDestroyProgram)>("nvrtcDestroyProgram")(program);
}

NB_MODULE(_nvrtc, module) {
    module.def("keep_in", [](const std::string &path) { folder = path; }, nanobind::arg("folder"));
}
