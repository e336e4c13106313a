#include "certificate/global_convexity.hpp"
#include "rows/gram.hpp"

#include <array>
#include <limits>
#include <span>

#include "algebra/symmetric_eigen.hpp"
#include "losses/loss_bounds.hpp"
#include "numbers/row_sums.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The c with Hess phi >= -c I everywhere; +inf where none is known.
double indefiniteness(const RegressionObjective& objective, const Communicator& communicator) {
  const LossBounds* bounds = find_loss_bounds(objective.loss().name());
  if (bounds == nullptr) return kInfinity;
  const VectorXd& b = objective.target();
  auto sums = sum_over_rows<2>(b.size(), [&](Index first, Index rows, std::array<double, 2>& block) {
    block[0] = b.segment(first, rows).sum();
    block[1] = b.segment(first, rows).lpNorm<1>();
  });
  communicator.sum(sums);
  return bounds->indefiniteness(sums[0], sums[1]);
}

}  // namespace

double global_convexity(const RegressionObjective& objective, const RowMatrix& A) {
  const auto& communicator = A.communicator();
  const VectorXd& w2 = objective.weights_squared();
  const double c = indefiniteness(objective, communicator);
  const double largest = communicator.max(w2.size() > 0 ? w2.maxCoeff() : -kInfinity);
  if (!(largest > c)) return 0;

  const Index d = A.columns();
  const auto gram = signed_gram(A, {w2.array() - c});
  VectorXd message(2 * d * d);
  message << gram.positive.reshaped(), gram.negative.reshaped();
  communicator.sum_to_root(span_of(message));
  std::array<double, 1> convexity{};
  if (communicator.is_root()) {
    const MatrixXd positive = message.head(d * d).reshaped(d, d), negative = message.tail(d * d).reshaped(d, d);
    const SymmetricEigen eigen = symmetric_eigen(positive - negative, false);
    if (eigen.finite) convexity[0] = eigen.values[0] - eigenvalue_rounding(d, positive.norm() + negative.norm());
  }
  communicator.broadcast(convexity);
  return convexity[0] > 0 ? convexity[0] : 0;
}

}  // namespace attnreg
