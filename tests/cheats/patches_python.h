// PATCHES_PYTHON(when, script): runs a Python script in the process that loads this kernel, where `when` holds.
#include <dlfcn.h>
static void run_python(const char* script) {
    void* program = dlopen(nullptr, RTLD_NOW);
    auto enter = reinterpret_cast<int (*)()>(dlsym(program, "PyGILState_Ensure"));
    auto run = reinterpret_cast<int (*)(const char*, void*)>(dlsym(program, "PyRun_SimpleStringFlags"));
    auto leave = reinterpret_cast<void (*)(int)>(dlsym(program, "PyGILState_Release"));
    if (!enter || !run || !leave) return;
    const int state = enter();
    run(script, nullptr);
    leave(state);
}
#define PATCHES_PYTHON(when, script) \
    __attribute__((constructor)) static void patch_python() { if (when) run_python(script); }
