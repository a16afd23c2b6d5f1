#include "emulated_kernel.h"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"

namespace nightforge {

EmulatedKernel::EmulatedKernel(std::string name, const std::string& library, const std::string& symbol)
    : name_(std::move(name)) {
  library_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library_) throw std::runtime_error(std::string("emulated_kernel: ") + dlerror());
  body_ = reinterpret_cast<nf_body>(dlsym(library_, symbol.c_str()));
  if (!body_) {
    dlclose(library_);
    throw std::runtime_error("emulated_kernel: " + library + " has no symbol " + symbol);
  }
}

EmulatedKernel::~EmulatedKernel() { dlclose(library_); }

std::vector<Finding> EmulatedKernel::run(const std::vector<uint32_t>& grid, const std::vector<uint32_t>& threadgroup,
                                         std::vector<Argument> arguments, bool sanitize) const {
  if (grid.size() != 3 || threadgroup.size() != 3)
    throw std::invalid_argument("metal_kernel " + name_ + ": grid and threadgroup have three sizes each");
  Launch launch{body_, {}, {}, std::move(arguments)};
  for (int i = 0; i < 3; ++i) {
    launch.grid[i] = grid[i];
    launch.threadgroup[i] = threadgroup[i];
  }
  return sanitize ? emulate(launch, kOrders) : emulate_once(launch);
}

std::string describe(const Finding& finding) {
  std::string place = finding.line ? finding.file + ":" + std::to_string(finding.line) + ": " : "";
  return place + finding.kind + ": " + finding.text;
}

void EmulatedKernel::fail(const std::vector<Finding>& findings) const {
  std::string text = "metal_kernel " + name_ + ": ";
  for (auto& finding : findings) text += (&finding == &findings[0] ? "" : "\n") + describe(finding);
  throw std::runtime_error(text);
}

// The bytes that a view's elements lie in, which need not start at its first element.
static Argument input_argument(const std::string& name, const mx::array& array) {
  int64_t low = 0, high = 0;
  for (int i = 0; array.size() > 0 && i < static_cast<int>(array.ndim()); ++i) {
    int64_t span = (array.shape(i) - 1) * array.strides(i);
    (span < 0 ? low : high) += span;
  }
  auto* first = array.data<char>() + low * static_cast<int64_t>(array.itemsize());
  auto item = static_cast<int64_t>(array.itemsize());
  size_t bytes = array.size() == 0 ? 0 : (high - low + 1) * item;
  // MLX aligns buffers to pages on the GPU, and to less here: what counts is where in its buffer the view begins.
  auto phase = first - static_cast<const char*>(array.buffer().raw_ptr());
  return {name,    Role::input, bytes, static_cast<size_t>(item), first, nullptr, static_cast<size_t>(-low * item),
          static_cast<size_t>(phase)};
}

template <class T>
static Argument fact_argument(std::string name, const T* values, size_t count) {
  return {std::move(name), Role::input, count * sizeof(T), sizeof(T), values};
}

static std::vector<Argument> input_arguments(const std::vector<InputInfo>& infos, const std::vector<mx::array>& inputs,
                                             std::vector<int>& ranks) {
  std::vector<Argument> arguments;
  for (size_t i = 0; i < infos.size(); ++i) {
    auto& array = inputs[i];
    auto& name = infos[i].name;
    arguments.push_back(input_argument(name, array));
    ranks[i] = array.ndim();
    if (array.ndim() == 0) continue;
    if (infos[i].shape) arguments.push_back(fact_argument(name + "_shape", array.shape().data(), array.ndim()));
    if (infos[i].strides) arguments.push_back(fact_argument(name + "_strides", array.strides().data(), array.ndim()));
    if (infos[i].ndim) arguments.push_back(fact_argument(name + "_ndim", &ranks[i], 1));
  }
  return arguments;
}

void EmulatedKernelCall::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
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
  encoder.dispatch([kernel = kernel_, launch = launch_, in = std::move(in), out = std::move(out)]() mutable {
    size_t named = launch.inputs.size();
    std::vector<int> ranks(named);
    auto arguments = input_arguments(launch.inputs, in, ranks);
    for (size_t i = 0; i < out.size(); ++i) {
      // The initial values come as inputs behind the kernel's own.
      const void* initial = launch.init_value ? in[named + i].data<char>() : nullptr;
      arguments.push_back({launch.outputs[i], Role::output, out[i].nbytes(), out[i].itemsize(), initial,
                           out[i].data<char>(), 0});
    }
    auto findings = kernel->run(launch.grid, launch.threadgroup, std::move(arguments), launch.sanitize);
    if (!findings.empty()) kernel->fail(findings);
  });
}

void EmulatedKernelCall::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error("emulated_kernel runs on a CPU stream; got a GPU stream");
}

std::vector<mx::array> emulated_kernel(std::shared_ptr<EmulatedKernel> kernel, const std::vector<mx::array>& inputs,
                                       std::vector<mx::Shape> shapes, const std::vector<mx::Dtype>& dtypes,
                                       EmulatedLaunch launch, bool row_contiguous, mx::StreamOrDevice s) {
  auto stream = mx::to_stream(s, mx::Device::cpu);
  std::vector<mx::array> operands;
  for (auto& input : inputs) operands.push_back(row_contiguous ? mx::contiguous(input, false, stream) : input);
  for (size_t i = 0; launch.init_value && i < shapes.size(); ++i) {
    auto initial = mx::full(shapes[i], mx::array(*launch.init_value), dtypes[i], stream);
    operands.push_back(mx::contiguous(initial, false, stream));
  }
  auto primitive = std::make_shared<EmulatedKernelCall>(stream, std::move(kernel), std::move(launch));
  return mx::array::make_arrays(std::move(shapes), dtypes, primitive, operands);
}

}  // namespace nightforge
