// `cpu_kernel`: puts a compiled C++ variant into the MLX graph, the CPU's twin of mx.fast.metal_kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mlx/array.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"

namespace nightforge {

namespace mx = mlx::core;

// An entry point of a compiled variant, called once for each part of the work: by whichever thread, in any order.
using EntryPoint = void (*)(const void* const* inputs, void* const* outputs, const long* dims, int part, int parts);

class CpuKernel {
 public:
  CpuKernel(const std::string& library, const std::string& symbol, int threads);
  ~CpuKernel();
  CpuKernel(const CpuKernel&) = delete;
  CpuKernel& operator=(const CpuKernel&) = delete;

  void run(const std::vector<const void*>& inputs, const std::vector<void*>& outputs, const std::vector<long>& dims);
  int parts() const;  // of a call's work
  double seconds() const { return nanoseconds_ * 1e-9; }  // wall time inside the kernel, all calls

 private:
  void* library_;
  EntryPoint entry_;
  int threads_;
  std::atomic<int64_t> nanoseconds_{0};
};

class CpuKernelCall : public mx::Primitive {
 public:
  CpuKernelCall(mx::Stream stream, std::shared_ptr<CpuKernel> kernel, std::vector<long> dims)
      : Primitive(stream), kernel_(std::move(kernel)), dims_(std::move(dims)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  const char* name() const override { return "CpuKernel"; }

 private:
  std::shared_ptr<CpuKernel> kernel_;
  std::vector<long> dims_;
};

std::vector<mx::array> cpu_kernel(std::shared_ptr<CpuKernel> kernel, const std::vector<mx::array>& inputs,
                                  std::vector<mx::Shape> shapes, const std::vector<mx::Dtype>& dtypes,
                                  std::vector<long> dims, mx::StreamOrDevice s);

}  // namespace nightforge
