#pragma once

#include <span>

namespace attnreg {

/// Sums of several callers that become one message.
class JointSums {
 public:
  virtual ~JointSums() = default;
  /// Collective. Returns when `values` are their sum over the ranks.
  virtual void sum(std::span<double> values) = 0;
};

}  // namespace attnreg
