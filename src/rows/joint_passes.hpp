#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "ranks/own_stack.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

/// Several tasks over the same rows that run together. A task stops at every pass over A and at every sum over the
/// ranks. When all have stopped, one message serves all sums; if no task waits for a sum, one read serves all passes. A
/// task is ordinary code, written for itself alone: it need only use a matrix of `RowPasses::joined` and the
/// communicator of that matrix.
///
/// All tasks run on the caller's thread, one at a time, each on a stack of its own. What is served next depends only on
/// what the tasks wait for, so that ranks with the same tasks stay together. Outside of `run` passes are served at
/// once.
class JointPasses final : public PassServer {
 public:
  /// Local. `A` must outlive this.
  explicit JointPasses(const RowMatrix& A) : A_(A) {}

  /// Collective, if the tasks are: until all are done. An exception of one ends all, and is thrown.
  void run(const std::vector<std::function<void()>>& tasks);

  // Of `RowMatrix` and `Communicator`, on a task's stack.
  RowPasses::MapSums map(const RowPasses::MapRequest& request, double& reads) override;
  Eigen::VectorXd normal_product(const Eigen::VectorXd& p, const RowCurvature& weights, Eigen::VectorXd& y,
                                 double& reads) override;
  void sum(std::span<double> values) override;

 private:
  struct Pass {
    RowPasses::MapRequest request;
    const RowCurvature* weights;  // of a normal product, which has a kernel of its own if it is alone
    double& reads;
    RowPasses::MapSums result{};
  };
  struct Task {
    OwnStack stack;
    Pass* pass = nullptr;                    // that it waits for
    std::optional<std::span<double>> sum{};  // that it waits for
  };

  void make(Pass& pass);
  void serve(const std::vector<Pass*>& passes);
  void serve(const std::vector<std::span<double>>& sums);

  const RowMatrix& A_;
  std::vector<Task> tasks_;
  Task* running_ = nullptr;
};

}  // namespace attnreg
