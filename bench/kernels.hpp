#pragma once

#include <memory>
#include <vector>

#include "measure.hpp"

namespace attnreg::bench {

/// What the kernels work on: the regression of a softmax with some random x, made so that the logits have variance 1.
/// Everything heavy is made when a kernel is first prepared.
class Workbench {
 public:
  /// Collective. `matrix` must outlive the kernels; `twin` is the same A held as double, or null.
  Workbench(const BenchMatrix& matrix, const BenchMatrix* twin);
  ~Workbench();

  /// Local. All kernels that A's type has, in the order of the table; hold references to this object.
  std::vector<Kernel> kernels();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace attnreg::bench
