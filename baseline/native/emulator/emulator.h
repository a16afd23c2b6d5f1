// What a translated Metal kernel and the emulator's runtime know of each other: the kernel's library calls these
// functions, through the MSL headers in baseline/targets/msl and through the code that the compiler's
// -fsanitize=thread puts in front of every access to memory.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Where a Metal thread is; every attribute that MLX passes to a kernel follows from these.
struct nf_thread {
  uint32_t position_in_grid[3];
  uint32_t position_in_threadgroup[3];
  uint32_t threadgroup_position_in_grid[3];
  uint32_t threads_per_threadgroup[3];  // fewer than dispatched at the edge of a ragged grid
  uint32_t dispatch_threads_per_threadgroup[3];
  uint32_t threads_per_grid[3];
  uint32_t threadgroups_per_grid[3];
  uint32_t index_in_threadgroup;
};

// A kernel's entry point: one Metal thread from its first line to its last.
typedef void (*nf_body)(void* const* buffers, const nf_thread* self);

// The running thread.
const nf_thread* nf_self();

// A threadgroup barrier; `flags` are mem_flags: 1 orders device memory, 2 threadgroup memory.
void nf_barrier(uint32_t flags, const char* file, int line);

// As nf_barrier, for one SIMD group.
void nf_simd_barrier(uint32_t flags, const char* file, int line);

// Lets the `width` (32: a SIMD group, 4: a quad) threads around this one see each other's value: `all` receives
// `width` values of `bytes` each, by lane; those of lanes that do not exist are zero. Returns the mask of the lanes
// that exist. `function` is what the kernel called, for a report.
uint32_t nf_exchange(const void* value, size_t bytes, void* all, int width, const char* function, const char* file,
                     int line);

// The storage of a threadgroup variable, the same for all threads of a threadgroup. `key` is an address that no
// other variable has.
void* nf_shared(const void* key, const char* name, size_t bytes, const char* file, int line);

// An atomic access: the bytes are read or written, and are no race with other atomic ones. Threads change places only at
// barriers and exchanges, so that a read followed by a write is one step.
void nf_atomic_read(const void* address, void* value, size_t bytes);
void nf_atomic_write(void* address, const void* value, size_t bytes);
}
