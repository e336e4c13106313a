#include "objective/random_point.hpp"

#include <cmath>

#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

VectorXd random_direction(Index d, std::uint64_t seed, int k) {
  VectorXd x(d);
  RandomStream(seed, Purpose::random_starts).normals(k, span_of(x));
  return x;
}

VectorXd with_logits_of(const RowMatrix& A, const VectorXd& x, double deviation, bool shift_invariant) {
  constexpr double kLargest = 3;
  const VectorXd z = A.multiply(x);
  if (!shift_invariant) {
    const double largest = A.communicator().max(z.size() > 0 ? z.cwiseAbs().maxCoeff() : 0.0);
    return largest > 0 ? VectorXd(x * (kLargest * deviation / largest)) : x;
  }
  const double n = static_cast<double>(A.rows_global());
  const double mean = A.communicator().sum(z.sum()) / n;
  const double found = std::sqrt(A.communicator().sum((z.array() - mean).square().sum()) / n);
  return found > 0 ? VectorXd(x * (deviation / found)) : x;
}

std::optional<VectorXd> random_point(const RegressionObjective& objective, std::uint64_t seed, int k) {
  constexpr double kLogits = 2;  // standard deviation
  if (objective.preconditioner().empty()) return std::nullopt;
  const VectorXd x = objective.preconditioner().whiten(random_direction(objective.dimension(), seed, k));
  return with_logits_of(objective.A(), x, kLogits, objective.loss().is_shift_invariant());
}

}  // namespace attnreg
