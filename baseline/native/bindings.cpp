#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <tuple>

#include "buffers.h"
#include "cpu_kernel.h"
#include "emulated_kernel.h"
#include "emulator/symbolizer.h"
#include "expert_read.h"
#include "mapped.h"
#include "pool.h"
#include "prefetch.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace nightforge;

using Shapes = std::vector<std::vector<int>>;
using SegmentTuple = std::tuple<mx::Dtype, std::vector<int>, int64_t>;
using OptionalStream = std::optional<mx::Stream>;

// The stream given, else the caller's current one where that is a CPU stream: a second stream would cost a fence for
// each call.
static mx::StreamOrDevice on(const OptionalStream& stream) {
  if (stream) return *stream;
  auto current = mx::default_stream(mx::default_device());
  if (current.device == mx::Device::cpu) return current;
  return mx::Device(mx::Device::cpu);
}

static mx::Shape to_shape(const std::vector<int>& dimensions) {
  return mx::Shape(dimensions.begin(), dimensions.end());
}

// What Python holds. nanobind's own shared_ptr would carry a Python reference into the graph, whose last copy is dropped
// on MLX's stream thread: that takes the GIL, and mx.clear_cache() waits for that thread with the GIL held.
struct FileHandle {
  std::shared_ptr<ExpertFile> file;
};
struct PrefetchHandle {
  std::shared_ptr<Prefetch> prefetch;
};
struct MappedHandle {
  std::shared_ptr<MappedExperts> experts;
};
struct KernelHandle {
  std::shared_ptr<CpuKernel> kernel;
};

static std::vector<mx::array> py_expert_read(const FileHandle& handle, const mx::array& indices,
                                             const std::vector<SegmentTuple>& segments, int threads, int reads,
                                             bool uring, const PrefetchHandle* prefetch, OptionalStream stream) {
  std::vector<Segment> list;
  for (auto& [dtype, shape, offset] : segments) list.push_back({dtype, to_shape(shape), offset});
  return expert_read(handle.file, indices, std::move(list), {threads, reads, uring},
                     prefetch ? prefetch->prefetch : nullptr, on(stream));
}

static std::vector<mx::array> py_call(const KernelHandle& handle, const std::vector<mx::array>& inputs,
                                      const Shapes& shapes, const std::vector<mx::Dtype>& dtypes,
                                      const std::vector<long>& dims, OptionalStream stream) {
  std::vector<mx::Shape> list;
  for (auto& shape : shapes) list.push_back(to_shape(shape));
  return cpu_kernel(handle.kernel, inputs, std::move(list), dtypes, dims, on(stream));
}

static std::vector<double> py_run(const KernelHandle& handle, const std::vector<uintptr_t>& inputs,
                                  const std::vector<uintptr_t>& outputs, const std::vector<long>& dims, int repeats) {
  std::vector<const void*> in;
  std::vector<void*> out;
  for (auto address : inputs) in.push_back(reinterpret_cast<const void*>(address));
  for (auto address : outputs) out.push_back(reinterpret_cast<void*>(address));
  std::vector<double> seconds;
  nb::gil_scoped_release release;
  for (int i = 0; i < repeats; ++i) {
    auto start = std::chrono::steady_clock::now();
    handle.kernel->run(in, out, dims);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

// What malloc and numpy give; an address that has less is a view's.
constexpr uintptr_t kAlignment = 16;

struct EmulatedHandle {
  std::shared_ptr<EmulatedKernel> kernel;
};
using InputTuple = std::tuple<std::string, bool, bool, bool>;
using ArgumentTuple = std::tuple<std::string, uintptr_t, size_t, size_t>;
using FindingTuple = std::tuple<std::string, std::string, std::string, int>;

static std::vector<mx::array> py_emulate(const EmulatedHandle& handle, const std::vector<mx::array>& inputs,
                                         const std::vector<InputTuple>& infos, const std::vector<std::string>& outputs,
                                         const Shapes& shapes, const std::vector<mx::Dtype>& dtypes,
                                         const std::vector<uint32_t>& grid, const std::vector<uint32_t>& threadgroup,
                                         std::optional<float> init_value, bool row_contiguous, bool sanitize,
                                         OptionalStream stream) {
  EmulatedLaunch launch{{}, outputs, grid, threadgroup, init_value, sanitize};
  for (auto& [name, shape, strides, ndim] : infos) launch.inputs.push_back({name, shape, strides, ndim});
  std::vector<mx::Shape> list;
  for (auto& shape : shapes) list.push_back(to_shape(shape));
  return emulated_kernel(handle.kernel, inputs, std::move(list), dtypes, std::move(launch), row_contiguous, on(stream));
}

static std::vector<FindingTuple> py_emulate_raw(const EmulatedHandle& handle, const std::vector<ArgumentTuple>& inputs,
                                                const std::vector<ArgumentTuple>& outputs,
                                                const std::vector<uint32_t>& grid,
                                                const std::vector<uint32_t>& threadgroup, bool sanitize) {
  std::vector<Argument> arguments;
  for (auto& [name, address, bytes, element] : inputs)
    arguments.push_back({name, Role::input, bytes, element, reinterpret_cast<const void*>(address), nullptr, 0,
                         address % kAlignment});
  for (auto& [name, address, bytes, element] : outputs)
    arguments.push_back({name, Role::output, bytes, element, nullptr, reinterpret_cast<void*>(address), 0,
                         address % kAlignment});
  std::vector<FindingTuple> found;
  nb::gil_scoped_release release;
  for (auto& f : handle.kernel->run(grid, threadgroup, std::move(arguments), sanitize))
    found.push_back({f.kind, f.text, f.file, f.line});
  return found;
}

static nb::dict py_counters() {
  nb::dict result;
  auto& counters = read_counters();
  result["reads"] = counters.reads.load();
  result["read_bytes"] = counters.bytes.load();
  result["read_seconds"] = counters.nanoseconds.load() * 1e-9;
  result["prefetched_bytes"] = counters.prefetched_bytes.load();
  result["prefetch_hit_bytes"] = counters.hit_bytes.load();
  auto buffers = BufferPool::shared().counters();
  result["buffers"] = buffers.allocations;
  result["buffer_bytes"] = buffers.bytes;
  return result;
}

NB_MODULE(_native, m) {
  nb::module_::import_("mlx.core");
  m.doc() = "nightforge's two MLX primitives and their pool of threads";

  m.def("reserve_threads", [](int n) { Pool::shared().reserve(n); }, "n"_a,
        "Grow the shared pool so that one job can use `n` threads. Never call it in a token's path.");
  m.def("pool_size", [] { return Pool::shared().size(); }, "Threads that one job can use.");
  m.def("counters", &py_counters,
        "Totals since the process began: reads (asked of the kernel), read_bytes, read_seconds (wall time in "
        "expert_read), prefetched_bytes (of read_bytes, those read ahead), prefetch_hit_bytes (of those, the ones that "
        "were needed), buffers (allocated for experts); and buffer_bytes, held for experts now.");
  m.def("limit_buffers", [](size_t bytes) { BufferPool::shared().set_limit(bytes); }, "bytes"_a,
        "How many bytes of expert buffers, in use and idle together, are kept for reuse.");
  m.def("use_huge_pages", &use_huge_pages, "array"_a,
        "Move what an evaluated array holds to huge pages, where it fills any and the system has them.");
  m.def("uring_available", &ring_available, "Whether reads can go through io_uring: built in, and allowed here.");

  nb::class_<FileHandle>(m, "ExpertFile", "One layer's packed experts, opened for reading.")
      .def("__init__",
           [](FileHandle* self, std::string path, int layer, int experts, int64_t stride, bool direct) {
             new (self) FileHandle{std::make_shared<ExpertFile>(std::move(path), layer, experts, stride, direct)};
           },
           "path"_a, "layer"_a, "experts"_a, "stride"_a, "direct"_a = false);
  nb::class_<PrefetchHandle>(m, "Prefetch", "Reads a layer's experts of the previous token ahead, between its tokens.")
      .def("__init__",
           [](PrefetchHandle* self, const FileHandle& file, int threads, int reads, bool uring) {
             new (self) PrefetchHandle{std::make_shared<Prefetch>(file.file, ReadMethod{threads, reads, uring})};
           },
           "file"_a, "threads"_a, "reads_per_expert"_a, "uring"_a)
      .def("set_next", [](PrefetchHandle& self, const PrefetchHandle& next) { self.prefetch->set_next(next.prefetch); },
           "next"_a, "The layer that reads ahead once this one's experts have been read.");
  m.def("expert_read", &py_expert_read, "file"_a, "indices"_a, "segments"_a = std::vector<SegmentTuple>{},
        "threads"_a = 4, "reads_per_expert"_a = 1, "uring"_a = false, "prefetch"_a = nb::none(), "stream"_a = nb::none(),
        "Read the experts that `indices` names, when the graph is evaluated. Returns [records uint32 [n, stride / 4], "
        "then a view [n, *shape] for each segment (dtype, shape of one expert, byte offset)], and with a prefetch "
        "the record of each index, int32 [n]. A failed read raises "
        "RuntimeError at evaluation: 'expert_read: FILE: layer L, expert E: reason'.");

  nb::class_<MappedHandle>(m, "MappedExperts", "One layer's packed experts, mapped: RuntimeError where they cannot be.")
      .def("__init__",
           [](MappedHandle* self, const FileHandle& file) {
             new (self) MappedHandle{std::make_shared<MappedExperts>(file.file)};
           },
           "file"_a)
      .def_prop_ro("records", [](const MappedHandle& handle) { return handle.experts->records(); },
                   "uint32 [experts, stride / 4], read-only, in the page cache.");
  m.def("expert_map",
        [](const MappedHandle& handle, const mx::array& indices, int threads, OptionalStream stream) {
          return expert_map(handle.experts, indices, threads, on(stream));
        },
        "experts"_a, "indices"_a, "threads"_a = 4, "stream"_a = nb::none(),
        "`indices` as int32 [n], each one's record, once the page cache holds those. Raises as expert_read does.");

  nb::class_<KernelHandle>(m, "CpuKernel", "An entry point of a compiled variant.")
      .def("__init__",
           [](KernelHandle* self, const std::string& library, const std::string& symbol, int threads) {
             new (self) KernelHandle{std::make_shared<CpuKernel>(library, symbol, threads)};
           },
           "library"_a, "symbol"_a, "threads"_a)
      .def("__call__", &py_call, "inputs"_a, "shapes"_a, "dtypes"_a, "dims"_a, "stream"_a = nb::none(),
           "Add a call to the MLX graph; returns one array for each output shape and dtype.")
      .def("run", &py_run, "inputs"_a, "outputs"_a, "dims"_a, "repeats"_a = 1,
           "Call the kernel on raw addresses, outside MLX; returns the seconds of each repeat.")
      .def_prop_ro("parts", [](const KernelHandle& handle) { return handle.kernel->parts(); },
                   "How often a call runs the entry point, each time for a part of the work.")
      .def_prop_ro("seconds", [](const KernelHandle& handle) { return handle.kernel->seconds(); },
                   "Wall seconds spent in the kernel, all calls together.");

  m.def("start_symbolizer", &start_symbolizer, "library"_a,
        "Start the program that names the lines of an emulated kernel's library, in a process that will be allowed to "
        "start none.");
  nb::class_<EmulatedHandle>(m, "EmulatedKernel", "A translated Metal kernel, executed on the CPU and sanitised.")
      .def("__init__",
           [](EmulatedHandle* self, std::string name, const std::string& library, const std::string& symbol) {
             new (self) EmulatedHandle{std::make_shared<EmulatedKernel>(std::move(name), library, symbol)};
           },
           "name"_a, "library"_a, "symbol"_a)
      .def("__call__", &py_emulate, "inputs"_a, "infos"_a, "outputs"_a, "shapes"_a, "dtypes"_a, "grid"_a,
           "threadgroup"_a, "init_value"_a = nb::none(), "row_contiguous"_a = true, "sanitize"_a = true,
           "stream"_a = nb::none(),
           "Add a launch to the MLX graph. `infos` are (name, takes its shape, strides, ndim). What the sanitizer "
           "finds raises RuntimeError at evaluation, a line a finding.")
      .def("run", &py_emulate_raw, "inputs"_a, "outputs"_a, "grid"_a, "threadgroup"_a, "sanitize"_a = true,
           "Launch on raw memory, outside MLX: arguments are (name, address, bytes, element bytes). Returns the "
           "findings: (kind, text, file, line).");
}
