#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

namespace nightforge {

static size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

Stack::Stack() {
  // Overflowing the stack meets the page below it, which nobody may touch.
  constexpr int kFlags = MAP_PRIVATE | MAP_ANON | MAP_NORESERVE;
  void* mapped = mmap(nullptr, kStackBytes + page(), PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  low_ = static_cast<char*>(mapped) + page();
  mprotect(mapped, page(), PROT_NONE);
}

Stack::~Stack() { munmap(low_ - page(), kStackBytes + page()); }

#if defined(__APPLE__)
#define SYMBOL "_nf_switch"
#else
#define SYMBOL "nf_switch"
#endif

// The registers that the calling convention lets a function keep are saved on the stack that is left.
#if defined(__x86_64__)
constexpr size_t kSaved = 6;
asm(".text\n.globl " SYMBOL "\n" SYMBOL ":\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "ret\n");
#elif defined(__aarch64__)
constexpr size_t kSaved = 20;
asm(".text\n.globl " SYMBOL "\n.p2align 2\n" SYMBOL ":\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp, #0]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\nstp d8, d9, [sp, #80]\nstp d10, d11, [sp, #96]\nstp d12, d13, [sp, #112]\n"
    "stp d14, d15, [sp, #128]\nstp x29, x30, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp, #0]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\nldp d8, d9, [sp, #80]\nldp d10, d11, [sp, #96]\nldp d12, d13, [sp, #112]\n"
    "ldp d14, d15, [sp, #128]\nldp x29, x30, [sp, #144]\n"
    "add sp, sp, #160\nret\n");
#else
#error "the emulator switches fibers on x86-64 and on arm64"
#endif

void* first_context(const Stack& stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack.low() + kStackBytes);
#if defined(__x86_64__)
  *--top = nullptr;  // keeps the stack as a call would leave it: 8 bytes off a multiple of 16
  *--top = reinterpret_cast<void*>(entry);
  top -= kSaved;
  std::memset(top, 0, kSaved * sizeof(void*));
#else
  top -= kSaved;
  std::memset(top, 0, kSaved * sizeof(void*));
  top[kSaved - 1] = reinterpret_cast<void*>(entry);  // x30, where `ret` goes
#endif
  return top;
}

}  // namespace nightforge
