// A program outside attnreg that fits softmax(A x) ~ b to eight rows.

#include <mpi.h>

#include <iostream>
#include <utility>

#include "attnreg/regression.hpp"

namespace {

int solve() {
  const attnreg::Communicator communicator(MPI_COMM_WORLD);
  const auto partition = attnreg::RowPartition::from_local(communicator, 4);
  const double first = 4.0 * communicator.rank();
  const Eigen::VectorXd position = Eigen::VectorXd::LinSpaced(4, first, first + 3);

  attnreg::RowMajorMatrix block(4, 2);
  block << position, position.array().square().matrix();
  const attnreg::RowMatrix A(communicator, partition, std::move(block));
  const Eigen::VectorXd b = position / 28;  // sums to 1 on two ranks
  const Eigen::VectorXd w = Eigen::VectorXd::Constant(4, 1e-3);

  const auto result = attnreg::solve_regression(A, b, w, {});
  if (communicator.is_root()) {
    std::cout << "consumer: " << attnreg::termination_name(result.summary.termination) << " on " << communicator.size()
              << " ranks\n";
  }
  return result.summary.termination == attnreg::Termination::converged ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int code = solve();
  MPI_Finalize();
  return code;
}
