// Experts where the page cache holds them: the whole file mapped, as one array of records, and nothing copied. What
// is not in memory is read by preads, deep and in large pieces, as faults of a mapping are not. The pages that were
// used count as resident memory of the process; the system may take them back at any time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "expert_read.h"

namespace nightforge {

class MappedExperts {
 public:
  // Throws std::runtime_error where the file is too short or cannot be mapped. A file that is cut later ends the
  // process with SIGBUS, as any mapping does.
  explicit MappedExperts(std::shared_ptr<ExpertFile> file);

  // uint32 [experts, stride / 4], read-only. It outlives this object if need be.
  const mx::array& records() const { return *records_; }

  // Returns when the page cache has held all of `experts` at some time in the call.
  void make_resident(const std::vector<int>& experts, int threads) const;

 private:
  bool resident(int expert) const;
  void read_through(int expert, int threads) const;

  std::shared_ptr<ExpertFile> file_;
  std::optional<mx::array> records_;
};

class ExpertMap : public mx::Primitive {
 public:
  ExpertMap(mx::Stream stream, std::shared_ptr<MappedExperts> experts, int threads)
      : Primitive(stream), experts_(std::move(experts)), threads_(threads) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  const char* name() const override { return "ExpertMap"; }

 private:
  std::shared_ptr<MappedExperts> experts_;
  int threads_;
};

// `indices` as int32 [n], the record of each, once those are in memory.
mx::array expert_map(std::shared_ptr<MappedExperts> experts, const mx::array& indices, int threads,
                     mx::StreamOrDevice s);

}  // namespace nightforge
