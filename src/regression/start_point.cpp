#include "regression/start_point.hpp"

#include <cmath>
#include <span>

#include "errors/text_of.hpp"
#include "losses/losses.hpp"
#include "newton/minimise.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::VectorXd;

namespace {

constexpr double kStartWeight = 1e-4;     // of the cross-entropy start, every row
constexpr double kStartTolerance = 1e-2;  // of its own |g(0)|
constexpr double kSmallMove = 0.1;        // logits that move less leave softmax(A x) nearly uniform: x = 0 is near
constexpr double kRandomLogits = 2;       // standard deviation
// The same where x = 0 is stationary: even losses leave it along negative curvature, or have a minimum there; from
// where phi vanishes one must stay away.
constexpr double kNearZero = 0.1, kAwayFromZero = 1;

/// A rough minimiser of the cross-entropy of b's positive part, from x = 0.
StartPoint cross_entropy_start(const RegressionObjective& objective, double positive_sum,
                               const RegressionOptions& options, Method method) {
  const RowMatrix& A = objective.A();
  const VectorXd b_plus = objective.b().cwiseMax(0) / positive_sum;
  const VectorXd w = VectorXd::Constant(b_plus.size(), kStartWeight);
  RegressionObjective cross_entropy(A, b_plus, w, make_loss("cross-entropy"), options.sampling, options.linear_solver);
  cross_entropy.adopt_scores(objective, true);
  NewtonOptions newton_options;
  newton_options.relative_tolerance = kStartTolerance;
  newton_options.time_limit_seconds = options.newton.time_limit_seconds;
  newton_options.on_iteration = options.on_start_iteration;
  Point point = cross_entropy.evaluate(VectorXd::Zero(A.columns()));
  const auto summary = minimise(method, cross_entropy, point, newton_options);
  return {point.x, Start::cross_entropy, "cross-entropy", summary.iterations};
}

/// Collective, one read. x scaled so that A x has this standard deviation; as it is if A x is constant.
VectorXd with_logits_of(const RowMatrix& A, const VectorXd& x, double deviation) {
  const VectorXd z = A.multiply(x);
  const double n = static_cast<double>(A.rows_global());
  const double mean = A.communicator().sum(z.sum()) / n;
  const double found = std::sqrt(A.communicator().sum((z.array() - mean).square().sum()) / n);
  return found > 0 ? VectorXd(x * (deviation / found)) : x;
}

VectorXd normals(Eigen::Index d, std::uint64_t seed, int k) {
  VectorXd x(d);
  RandomStream(seed, Purpose::random_starts).normals(k, span_of(x));
  return x;
}

/// The largest |a_i^T s| for the first model step s from the point at x = 0. One read and a model.
double first_move(RegressionObjective& objective, const Point& zero) {
  if (objective.preconditioner().empty() && !objective.refresh_preconditioner(zero, false)) return 0;
  return objective.largest_move(objective.direction(-objective.preconditioner().solve(zero.gradient)));
}

}  // namespace

Method cheaper_method(std::int64_t rows, Eigen::Index columns, const SamplingOptions& sampling) {
  const double n = static_cast<double>(rows), d = static_cast<double>(columns);
  const double gram = 1 + 0.08 * d;  // of all rows, in reads
  const double c = sampling.oversampling > 0 ? sampling.oversampling : automatic_oversampling(rows, columns);
  const double kept = std::min(1.0, c * d / n);  // share of the rows in a sampled model
  const double newton_step = 3 + gram, newton_cg_step = 2 + 2.5 + kept * gram;
  return newton_step <= newton_cg_step ? Method::newton : Method::newton_cg;
}

NewtonSummary minimise(Method method, Objective& objective, Point& point, const NewtonOptions& options) {
  return method == Method::newton ? newton(objective, point, options) : newton_cg(objective, point, options);
}

StartPoint choose_start(RegressionObjective& objective, const Point& point, const RegressionOptions& options,
                        Method method, std::vector<std::string>& notes) {
  const RowMatrix& A = objective.A();
  const StartPoint zero{VectorXd::Zero(A.columns()), Start::zero, "zero", 0};
  const Loss& loss = objective.loss();
  if (options.start == Start::given) return {options.x0, Start::given, "file", 0};
  if (options.start == Start::zero) return zero;
  if (options.start == Start::automatic && (loss.is_even() || loss.vanishes_at_zero())) {
    const double deviation = loss.vanishes_at_zero() ? kAwayFromZero : kNearZero;
    notes.push_back("start random: x = 0 is stationary for the loss " + std::string(loss.name()) +
                    "; logits of standard deviation " + text_of(deviation));
    const VectorXd x = with_logits_of(A, normals(A.columns(), options.sampling.seed, 0), deviation);
    return {x, Start::random, "random 0", 0};
  }
  const double positive_sum = A.communicator().sum(objective.b().cwiseMax(0).sum());
  if (!(positive_sum > 0)) {
    notes.push_back("no value of b is positive: there is no cross-entropy start, x = 0 is used");
    return zero;
  }
  if (options.start == Start::automatic) {
    if (options.loss == "rescaled-exp") return cross_entropy_start(objective, positive_sum, options, method);
    if (options.loss != "softmax") return zero;
    const double move = first_move(objective, point);
    const bool near = move <= kSmallMove;
    notes.push_back("start " + std::string(near ? "zero" : "cross-entropy") +
                    ": the first model step from x = 0 moves the logits by up to " + text_of(move) +
                    (near ? " <= " : " > ") + text_of(kSmallMove));
    if (near) return zero;
  }
  return cross_entropy_start(objective, positive_sum, options, method);
}

StartPoint random_start(const RegressionObjective& objective, std::uint64_t seed, int k) {
  const VectorXd x = objective.preconditioner().whiten(normals(objective.dimension(), seed, k));
  return {with_logits_of(objective.A(), x, kRandomLogits), Start::random, "random " + std::to_string(k), 0};
}

}  // namespace attnreg
