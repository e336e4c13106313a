#pragma once

#include <string>

#include "attnreg/solver.hpp"

namespace attnreg::app {

enum class Verbosity { quiet, normal, verbose };

/// The step lines on stderr, one per iteration in aligned columns, a header before the first. Local; for rank 0.
class StepLog {
 public:
  explicit StepLog(Verbosity verbosity) : verbosity_(verbosity) {}

  void print(const IterationRecord& record) { print("", record); }
  /// A step of one of several targets.
  void print_target(int target, const IterationRecord& record) { print(std::to_string(target) + ": ", record); }
  /// A step of the cross-entropy start; its value and gradient are those of the cross-entropy.
  void print_start(const IterationRecord& record) { print("start ", record); }

 private:
  void print(const std::string& phase, const IterationRecord& record);

  Verbosity verbosity_;
  bool header_printed_ = false;
};

}  // namespace attnreg::app
