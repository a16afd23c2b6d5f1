// Reading ahead: while a layer computes, the experts that the next layer used for the previous token are read into the
// buffer that its next evaluation will return. What the router then chooses is used in place; the rest is read over.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "expert_read.h"

namespace nightforge {

// The buffer of one evaluation of a layer, which a read ahead may be filling.
class Turn {
 public:
  explicit Turn(mx::array records) : records_(std::move(records)), held_(records_.shape(0), kNone) {}

  const mx::array& records() const { return records_; }

  // Reads `experts` into the first slots, one after the other, until the turn is claimed.
  void read_ahead(const ExpertFile& file, const std::vector<int>& experts, const ReadMethod& method);

  // Ends the reading ahead; nothing of it writes any more. The expert in each slot, or kNone.
  std::vector<int> claim();

  static constexpr int kNone = -1;

 private:
  bool begin();
  void end(size_t slot, int expert);

  mx::array records_;
  std::mutex mutex_;
  std::condition_variable idle_;
  bool claimed_ = false;
  bool reading_ = false;
  std::vector<int> held_;
};

// One layer's reading ahead.
class Prefetch {
 public:
  Prefetch(std::shared_ptr<ExpertFile> file, ReadMethod method) : file_(std::move(file)), method_(method) {}

  // The layer whose reading ahead begins when this one's experts have been read. It is not kept alive.
  void set_next(const std::shared_ptr<Prefetch>& next) { next_ = next; }

  // The buffer of the evaluation that comes next, for `count` experts. Evaluations run in the order of these calls.
  std::shared_ptr<Turn> take(int count);

  // Makes `turn` hold `experts`, expert i in slots[i]; then has the next layer read ahead.
  void read(Turn& turn, const std::vector<int>& experts, int* slots);

 private:
  std::shared_ptr<Turn> make_turn(int count) const;
  void start();

  std::shared_ptr<ExpertFile> file_;
  ReadMethod method_;
  std::weak_ptr<Prefetch> next_;
  std::mutex mutex_;
  std::shared_ptr<Turn> coming_;              // of the evaluation after those that are pending
  std::deque<std::weak_ptr<Turn>> pending_;   // taken, and not yet run; an evaluation that failed before leaves none
  std::vector<int> previous_;
};

}  // namespace nightforge
