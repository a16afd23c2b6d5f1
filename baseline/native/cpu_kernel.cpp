#include "cpu_kernel.h"

#include <dlfcn.h>

#include <chrono>
#include <stdexcept>

#include "expert_read.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "pool.h"

namespace nightforge {

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

CpuKernel::~CpuKernel() { dlclose(library_); }

void CpuKernel::run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs,
                    const std::vector<long>& dims) {
  auto start = std::chrono::steady_clock::now();
  Pool::shared().run(threads_, threads_, [&](int thread) {
    entry_(inputs.data(), outputs.data(), dims.data(), thread, threads_);
  });
  auto elapsed = std::chrono::steady_clock::now() - start;
  nanoseconds_ += std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count();
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
    for (auto& array : in) inputs.push_back(array.data<char>());
    for (auto& array : out) outputs.push_back(array.data<char>());
    kernel->run(inputs, outputs, dims);
  });
}

void CpuKernelCall::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error("cpu_kernel runs on a CPU stream; got a GPU stream");
}

// Whether an array that is not evaluated yet will be dense: what a kernel or a read puts out. MLX's `contiguous` copies
// a dense array too where its buffer is larger than it is, as those of reads are.
static bool born_dense(const mx::array& input) {
  if (!input.has_primitive()) return false;
  if (auto* read = dynamic_cast<const ExpertRead*>(&input.primitive())) return read->is_records(input);
  return dynamic_cast<const CpuKernelCall*>(&input.primitive()) != nullptr;
}

// Kernels see dense row-major buffers. One that is dense already costs no node in the graph.
static mx::array dense(const mx::array& input, mx::Stream stream) {
  bool available = input.status() == mx::array::Status::available;
  if (available ? input.flags().row_contiguous : born_dense(input)) return input;
  return mx::contiguous(input, false, stream);
}

std::vector<mx::array> cpu_kernel(std::shared_ptr<CpuKernel> kernel, const std::vector<mx::array>& inputs,
                                  std::vector<mx::Shape> shapes, const std::vector<mx::Dtype>& dtypes,
                                  std::vector<long> dims, mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s, mx::Device::cpu);
  std::vector<mx::array> operands;
  for (auto& input : inputs) operands.push_back(dense(input, stream));
  auto primitive = std::make_shared<CpuKernelCall>(stream, std::move(kernel), std::move(dims));
  return mx::array::make_arrays(std::move(shapes), dtypes, primitive, operands);
}

}  // namespace nightforge
