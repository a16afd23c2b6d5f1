// `emulated_kernel`: a translated Metal kernel as a node of the MLX graph, executed on the CPU by the emulator.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "emulator/launch.h"
#include "mlx/array.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"

namespace nightforge {

namespace mx = mlx::core;

// An input by name, and which facts about it the kernel takes as arguments behind it.
struct InputInfo {
  std::string name;
  bool shape, strides, ndim;
};

// How a kernel is run. `init_value` is what the outputs start with.
struct EmulatedLaunch {
  std::vector<InputInfo> inputs;
  std::vector<std::string> outputs;
  std::vector<uint32_t> grid, threadgroup;
  std::optional<float> init_value;
  bool sanitize;
};

class EmulatedKernel {
 public:
  EmulatedKernel(std::string name, const std::string& library, const std::string& symbol);
  ~EmulatedKernel();
  EmulatedKernel(const EmulatedKernel&) = delete;
  EmulatedKernel& operator=(const EmulatedKernel&) = delete;

  std::vector<Finding> run(const std::vector<uint32_t>& grid, const std::vector<uint32_t>& threadgroup,
                           std::vector<Argument> arguments, bool sanitize) const;
  [[noreturn]] void fail(const std::vector<Finding>& findings) const;

 private:
  std::string name_;
  void* library_;
  nf_body body_;
};

std::string describe(const Finding& finding);

class EmulatedKernelCall : public mx::Primitive {
 public:
  EmulatedKernelCall(mx::Stream stream, std::shared_ptr<EmulatedKernel> kernel, EmulatedLaunch launch)
      : Primitive(stream), kernel_(std::move(kernel)), launch_(std::move(launch)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  const char* name() const override { return "EmulatedKernel"; }

 private:
  std::shared_ptr<EmulatedKernel> kernel_;
  EmulatedLaunch launch_;
};

std::vector<mx::array> emulated_kernel(std::shared_ptr<EmulatedKernel> kernel, const std::vector<mx::array>& inputs,
                                       std::vector<mx::Shape> shapes, const std::vector<mx::Dtype>& dtypes,
                                       EmulatedLaunch launch, bool row_contiguous, mx::StreamOrDevice s);

}  // namespace nightforge
