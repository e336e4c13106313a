#include "certificate/global_convexity.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "losses/losses.hpp"
#include "numbers/row_sums.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"

namespace attnreg {

GlobalConvexity global_convexity(RegressionObjective& objective, bool singular_values) {
  GlobalConvexity result;
  const RowMatrix& A = objective.A();
  const VectorXd& b = objective.b();
  const auto w2 = objective.weights_squared();
  auto sums = sum_over_rows<2>(b.size(), [&](Index first, Index rows, std::array<double, 2>& block) {
    block[0] = b.segment(first, rows).sum();
    block[1] = b.segment(first, rows).lpNorm<1>();
  });
  A.communicator().sum(sums);
  result.target_norm = sums[1];
  const double c = result.indefiniteness = loss_bounds(objective.loss().name()).indefiniteness(sums[0], sums[1]);
  if (!std::isfinite(c)) return result;
  const double largest = w2.size() > 0 ? w2.maxCoeff() : 0;
  if (!singular_values && !objective.column_terms().has_ridge() && !(A.communicator().max(largest) > c)) return result;

  const Index d = A.columns();
  const OnStop on_stop = on_stop_in_gram(A);
  MatrixXd gram = MatrixXd::Zero(d, d);
  if (c > 0) {
    gram = signed_gram(A, {objective.unmasked_rows()}, {}, on_stop).positive;
    A.communicator().sum_to_root(span_of(gram));
  }
  MatrixXd ridge = objective.ridge_gram_on_root(on_stop);
  if (is_left(A, on_stop)) return result;
  std::array<double, 3> message{};
  if (A.communicator().is_root()) {
    const VectorXd to_caller = objective.columns().factor().cwiseInverse();  // g and H in the caller's units of x
    ridge = to_caller.asDiagonal() * ridge * to_caller.asDiagonal();
    gram = to_caller.asDiagonal() * gram * to_caller.asDiagonal();
    const SymmetricEigen lower = symmetric_eigen(ridge - c * gram, false);
    if (lower.finite)
      message[0] = std::max(0.0, lower.values[0] - eigenvalue_rounding(d, ridge.stableNorm() + c * gram.stableNorm()));
    const SymmetricEigen squares = symmetric_eigen(std::move(gram), false);
    if (squares.finite) {
      const double smallest = squares.values[0];
      message[1] = std::sqrt(std::max(0.0, squares.values[d - 1]));
      message[2] = smallest > eigenvalue_rounding(d, squares.values.stableNorm()) ? std::sqrt(smallest) : 0;
    }
  }
  A.communicator().broadcast(message);
  result.convexity = message[0];
  result.norm_A = message[1];
  result.smallest_singular = message[2];
  return result;
}

}  // namespace attnreg
