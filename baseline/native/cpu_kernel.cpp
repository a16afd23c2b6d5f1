#include "cpu_kernel.h"

#include <dlfcn.h>

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "pool.h"

namespace nightforge {

// More parts than threads: a thread whose core has other work to do, as when MLX builds the rest of a token, leaves
// parts to the others.
constexpr int kPartsOfThread = 4;

CpuKernel::CpuKernel(const std::string& library, const std::string& symbol, int threads) : threads_(threads) {
  if (threads < 1) throw std::invalid_argument("cpu_kernel: threads must be at least 1");
  library_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library_) throw std::runtime_error(std::string("cpu_kernel: ") + dlerror());
  entry_ = reinterpret_cast<EntryPoint>(dlsym(library_, symbol.c_str()));
  if (!entry_) {
    dlclose(library_);
    throw std::runtime_error("cpu_kernel: " + library + " has no symbol " + symbol);
  }
  Pool::shared().reserve(threads);
}

int CpuKernel::parts() const { return threads_ > 1 ? threads_ * kPartsOfThread : 1; }

CpuKernel::~CpuKernel() { dlclose(library_); }

void CpuKernel::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                    const std::vector<long>& dims) {
  auto start = std::chrono::steady_clock::now();
  Pool::shared().run(parts(), threads_, [&](int part) {
    entry_(inputs.data(), outputs.data(), dims.data(), part, parts());
  });
  auto elapsed = std::chrono::steady_clock::now() - start;
  nanoseconds_ += std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count();
}

// Copies the elements of `from` behind dimension `axis`, in order; where those lie side by side, all at once.
static char* copy_dense(const mx::array& from, int axis, const char* source, char* to) {
  int64_t span = from.itemsize();
  int dense = from.ndim();
  while (dense > axis && (from.shape(dense - 1) == 1 || from.strides(dense - 1) * int64_t(from.itemsize()) == span)) {
    span *= from.shape(--dense);
  }
  if (dense == axis) {
    std::memcpy(to, source, span);
    return to + span;
  }
  for (int i = 0; i < from.shape(axis); ++i) {
    to = copy_dense(from, axis + 1, source + i * from.strides(axis) * int64_t(from.itemsize()), to);
  }
  return to;
}

// Kernels see dense row-major buffers. Whether an input is one is known only now: asking MLX for a dense one when the
// graph was built would have made every input another node of it.
static const void* dense(const mx::array& input, std::vector<std::unique_ptr<char[]>>& copies) {
  const char* data = input.data<char>();
  if (input.flags().row_contiguous) return data;
  copies.push_back(std::make_unique<char[]>(input.nbytes()));
  copy_dense(input, 0, data, copies.back().get());
  return copies.back().get();
}

void CpuKernelCall::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  auto& encoder = mx::cpu::get_command_encoder(stream());
  std::vector<mx::array> in, out;
  for (auto& input : inputs) {
    encoder.set_input_array(input);
    in.push_back(mx::array::unsafe_weak_copy(input));
  }
  for (auto& output : outputs) {
    output.set_data(mx::allocator::malloc(output.nbytes()));
    encoder.set_output_array(output);
    out.push_back(mx::array::unsafe_weak_copy(output));
  }
  encoder.dispatch([kernel = kernel_, dims = dims_, in = std::move(in), out = std::move(out)]() mutable {
    std::vector<const void*> inputs;
    std::vector<void*> outputs;
    std::vector<std::unique_ptr<char[]>> copies;
    for (auto& array : in) inputs.push_back(dense(array, copies));
    for (auto& array : out) outputs.push_back(array.data<char>());
    kernel->run(inputs, outputs, dims);
  });
}

void CpuKernelCall::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error("cpu_kernel runs on a CPU stream; got a GPU stream");
}

std::vector<mx::array> cpu_kernel(std::shared_ptr<CpuKernel> kernel, const std::vector<mx::array>& inputs,
                                  std::vector<mx::Shape> shapes, const std::vector<mx::Dtype>& dtypes,
                                  std::vector<long> dims, mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s, mx::Device::cpu);
  auto primitive = std::make_shared<CpuKernelCall>(stream, std::move(kernel), std::move(dims));
  return mx::array::make_arrays(std::move(shapes), dtypes, primitive, inputs);
}

}  // namespace nightforge
