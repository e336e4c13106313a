#include "regression/sketched_newton.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "algebra/cholesky.hpp"
#include "attnreg/error.hpp"
#include "attnreg/leverage.hpp"
#include "certificate/global_convexity.hpp"
#include "errors/text_of.hpp"
#include "newton/line_search.hpp"
#include "newton/progress.hpp"
#include "ranks/span_of.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kGain = 2.5;        // a step shrinks |x - x*| by 0.4
constexpr double kBeta = 0.5;        // approximate scores are within a factor 2 of the true ones
constexpr double kSlack = 1 + 1e-6;  // covers the rounding of the bound's own few operations

void check_options(const SketchedNewtonOptions& options, double epsilon) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw InvalidArgument(message, Error::Scope::all_ranks);
  };
  require(options.delta > 0 && options.delta < 1, "sketched_newton.delta must be in (0, 1)");
  require(options.sampling_error > 0 && options.sampling_error < 1, "sketched_newton.sampling_error must be in (0, 1)");
  require(options.radius >= 0 && options.radius < kInfinity, "sketched_newton.radius must be >= 0");
  require(options.probes >= 0 && options.probes <= 1000, "sketched_newton.probes must be 0 to 1000");
  require(epsilon >= 0 && epsilon < kInfinity, "epsilon must be >= 0");
}

/// H~ of one step.
struct Model {
  MatrixXd matrix;  ///< d x d on rank 0, empty elsewhere
  std::int64_t draws = 0, rows = 0;
};

/// Makes H~ at the objective's point.
class SketchedHessian {
 public:
  SketchedHessian(RegressionObjective& objective, const RowMatrix& A, bool keep_low_rank,
                  const SamplingOptions& sampling, std::int64_t draws)
      : objective_(objective), A_(A), keep_low_rank_(keep_low_rank), sampling_(sampling), draws_(draws) {}

  /// Collective. `step` keys the random numbers.
  Model make(std::uint32_t step) const {
    if (draws_ >= A_.rows_global() && keep_low_rank_) return {objective_.hessian_on_root().exact, 0, A_.rows_global()};
    const VectorXd D = objective_.curvature() + objective_.weights_squared();
    const Index d = A_.columns(), entries = d * d;
    Model model{{}, draws_, A_.rows_global()};
    VectorXd message(entries + d + 1);  // A^T D~ A, u, sum delta
    WeightedRows rows{D};
    if (draws_ >= A_.rows_global()) {
      model.draws = 0;
    } else {
      const SampledRows sample = draw(D, step);
      rows = rows.choose(sample.rows, sample.weights);
      model.rows = sample.count_global;
      A_.passes().count_reads(static_cast<double>(model.rows) / static_cast<double>(A_.rows_global()));
    }
    const SignedGram gram = signed_gram(A_, rows);
    message.head(entries) = (gram.positive - gram.negative).reshaped();
    message.segment(entries, d) =
        keep_low_rank_ ? VectorXd(A_.passes().transpose_multiply(objective_.coupling())) : VectorXd::Zero(d);
    message[entries + d] = keep_low_rank_ ? objective_.self().sum() : 0;
    A_.communicator().sum_to_root(span_of(message));
    if (!A_.communicator().is_root()) return model;
    model.matrix = message.head(entries).reshaped(d, d);
    if (keep_low_rank_) add_low_rank(message.segment(entries, d), message[entries + d], model.matrix);
    return model;
  }

 private:
  SampledRows draw(const VectorXd& D, std::uint32_t step) const {
    const auto scores = leverage_scores(A_, D.cwiseAbs(),
                                        {.sketch_rows = sampling_.sketch_rows,
                                         .nonzeros = sampling_.nonzeros,
                                         .jl_columns = sampling_.jl_columns,
                                         .seed = sampling_.seed,
                                         .iteration = step});
    return sample_with_replacement(A_, scores.scores, {.draws = draws_, .seed = sampling_.seed, .iteration = step});
  }

  void add_low_rank(const VectorXd& u, double curvature, MatrixXd& H) const {
    const VectorXd& centre = objective_.centre();
    const VectorXd v = u - 0.5 * curvature * centre;  // [abar, u] S [abar, u]^T = -(v abar^T + abar v^T)
    H -= v * centre.transpose() + centre * v.transpose();
  }

  RegressionObjective& objective_;
  const RowMatrix& A_;
  bool keep_low_rank_;
  const SamplingOptions& sampling_;
  std::int64_t draws_;
};

/// Collective. v^T H v for the columns v of V. One read.
VectorXd exact_curvatures(const RegressionObjective& objective, const RowMatrix& A, const MatrixXd& V) {
  const VectorXd means = V.transpose() * objective.centre();
  const VectorXd zero = VectorXd::Zero(V.cols());
  VectorXd sums = A.passes().pass(zero, [&](const Tile& tile, VectorXd& sum) {
    const MatrixXd Y = tile.dense() * V;
    const auto of_tile = [&](const VectorXd& rows) { return rows.segment(tile.first_local(), Y.rows()).array(); };
    const Eigen::ArrayXd squares = of_tile(objective.curvature()) + of_tile(objective.weights_squared());
    for (Index k = 0; k < Y.cols(); ++k)
      sum[k] += (squares * Y.col(k).array().square() - 2 * means[k] * of_tile(objective.coupling()) * Y.col(k).array() +
                 means[k] * means[k] * of_tile(objective.self()))
                    .sum();
  });
  A.communicator().sum(span_of(sums));
  return sums;
}

/// The step, and vectors v to look at H~ on: the step itself, and v = L^-T normal with H~ = L L^T, which do not favour
/// the large directions of A.
struct Step {
  bool definite = false;
  VectorXd s;           ///< -H~^-1 g
  MatrixXd probes;      ///< d x (1 + normals)
  VectorXd curvatures;  ///< v^T H~ v: -g^T s, and |normal|^2
};

/// Collective. `H` on rank 0; the result is broadcast.
Step solve(const Communicator& communicator, const MatrixXd& H, const VectorXd& g, const MatrixXd& normals) {
  const Index d = g.size(), probes = normals.cols();
  VectorXd message = VectorXd::Zero(1 + d + d * probes);
  Cholesky cholesky;
  if (communicator.is_root() && cholesky.factor(H)) {
    const MatrixXd V = cholesky.lower().triangularView<Eigen::Lower>().adjoint().solve(normals);
    message << 1, -cholesky.solve(g), V.reshaped();
    if (!message.allFinite()) message.setZero();
  }
  communicator.broadcast(span_of(message));
  Step step{message[0] != 0, message.segment(1, d), message.tail(d * (1 + probes)).reshaped(d, 1 + probes), {}};
  step.curvatures.resize(1 + probes);
  step.curvatures << -g.dot(step.s), normals.colwise().squaredNorm().transpose();
  return step;
}

double largest_error(const VectorXd& model, const VectorXd& exact) {
  if (!(exact.minCoeff() > 0)) return kInfinity;
  return (model.array() / exact.array() - 1).abs().maxCoeff();
}

class Iteration {
 public:
  Iteration(RegressionObjective& objective, const RowMatrix& A, const SketchedNewtonOptions& options, double epsilon)
      : objective_(objective), A_(A), options_(options), epsilon_(epsilon) {
    result_.convexity = global_convexity(objective, A);
    result_.distance_bound = distance_bound();
    plan();
  }

  SketchedNewtonSummary run(NewtonOptions options, const SamplingOptions& sampling) {
    if (decides_by_distance()) options.relative_tolerance = std::numeric_limits<double>::min();
    const std::int64_t draws = plan_draws(options.max_iterations);
    const SketchedHessian hessian(objective_, A_, options_.keep_low_rank, sampling, draws);
    Progress progress(objective_, options);
    for (std::uint32_t step = 0;; ++step) {
      if (near_enough()) return finish(progress.summary(Termination::converged));
      if (progress.finished()) return finish(progress.summary());
      if (result_.step_limit > 0 && step >= static_cast<std::uint32_t>(result_.step_limit)) {
        note("all T = " + std::to_string(result_.step_limit) + " steps were used up");
        return finish(progress.summary(Termination::iteration_limit));
      }
      if (!take_step(hessian, step, sampling.seed, progress)) return finish(progress.summary(Termination::breakdown));
    }
  }

 private:
  bool decides_by_distance() const { return result_.convexity > 0 && epsilon_ > 0; }
  void note(std::string text) { result_.notes.push_back(std::move(text)); }
  double distance_bound();
  bool near_enough();
  void plan();
  std::int64_t plan_draws(int max_iterations);
  bool take_step(const SketchedHessian& hessian, std::uint32_t step, std::uint64_t seed, Progress& progress);
  SketchedNewtonSummary finish(NewtonSummary summary);

  RegressionObjective& objective_;
  const RowMatrix& A_;
  const SketchedNewtonOptions& options_;
  double epsilon_;
  SketchedNewtonSummary result_;
};

double Iteration::distance_bound() {
  if (!(result_.convexity > 0)) return kInfinity;
  const double bound = kSlack * (objective_.gradient().norm() + objective_.gradient_floor()) / result_.convexity;
  return std::isfinite(bound) ? bound : kInfinity;
}

/// Whether |x - x*| <= epsilon is certified, with the gradient of a fresh A x.
bool Iteration::near_enough() {
  if (!decides_by_distance() || !(result_.distance_bound <= epsilon_)) return false;
  if (!objective_.is_fresh()) {
    objective_.move_to(objective_.x());
    result_.distance_bound = distance_bound();
  }
  return result_.distance_bound <= epsilon_;
}

void Iteration::plan() {
  const double radius = options_.radius > 0 ? options_.radius : result_.distance_bound;
  note(result_.convexity > 0 ? "H(y) >= l I for every y with l = " + text_of(result_.convexity)
                             : "H(y) >= l I is not certified for any l > 0: |x - x*| cannot be bounded by |g| / l");
  if (!(epsilon_ > 0)) return;
  if (!std::isfinite(radius)) {
    note("epsilon is not used: r0 is not known (give a radius)");
    return;
  }
  const double steps = std::ceil(std::log(radius / epsilon_) / std::log(kGain));
  result_.step_limit = static_cast<int>(std::clamp(steps, 1.0, 1e6));
  note("T = " + std::to_string(result_.step_limit) + " steps from r0 = " + text_of(radius) +
       " to epsilon = " + text_of(epsilon_));
}

std::int64_t Iteration::plan_draws(int max_iterations) {
  const int steps = result_.step_limit > 0 ? result_.step_limit : std::max(1, max_iterations);
  const std::int64_t draws =
      with_replacement_size(A_.columns(), options_.sampling_error, options_.delta / steps, kBeta);
  if (draws >= A_.rows_global())
    note("all rows are used: a sample would take " + std::to_string(draws) + " draws of " +
         std::to_string(A_.rows_global()) + " rows");
  return draws;
}

/// False if H~ is not positive definite; then the point stays.
bool Iteration::take_step(const SketchedHessian& hessian, std::uint32_t step, std::uint64_t seed, Progress& progress) {
  const Model model = hessian.make(step);
  const MatrixXd normals = gaussian_probes(A_.columns(), options_.probes, seed, step);
  const Step newton_step = solve(A_.communicator(), model.matrix, objective_.gradient(), normals);
  if (!newton_step.definite) {
    note("H~ is not positive definite in step " + std::to_string(step + 1) +
         ": the method needs weights w large enough to make H so; use another one");
    return false;
  }
  SketchedStep record{.iteration = static_cast<int>(step) + 1, .draws = model.draws, .rows = model.rows};
  record.sampling_error =
      options_.probes > 0 ? largest_error(newton_step.curvatures, exact_curvatures(objective_, A_, newton_step.probes))
                          : std::numeric_limits<double>::quiet_NaN();
  const double value = objective_.value();
  objective_.set_direction(newton_step.s);
  objective_.step(1);
  progress.stepped({.step = 1, .change = objective_.value() - value});
  record.distance_bound = result_.distance_bound = distance_bound();
  result_.steps.push_back(record);
  if (options_.on_step) options_.on_step(record);
  return true;
}

SketchedNewtonSummary Iteration::finish(NewtonSummary summary) {
  result_.distance_bound = distance_bound();
  summary.value = objective_.value();  // of the point made anew
  summary.gradient_norm = objective_.gradient().norm();
  if (summary.gradient_reference > 0) summary.relative_gradient = summary.gradient_norm / summary.gradient_reference;
  summary.reads_of_a = objective_.reads_of_a();
  summary.collectives = objective_.collectives();
  summary.seconds = objective_.seconds();
  if (decides_by_distance() && !(result_.distance_bound <= epsilon_))
    note("|x - x*| <= " + text_of(result_.distance_bound) + " is certified, not epsilon = " + text_of(epsilon_));
  result_.newton = summary;
  return std::move(result_);
}

}  // namespace

SketchedNewtonSummary sketched_newton(RegressionObjective& objective, const RowMatrix& A, const VectorXd& x0,
                                      const NewtonOptions& options, const SketchedNewtonOptions& sketched,
                                      const SamplingOptions& sampling, double epsilon) {
  check_arguments(objective, x0, options);
  check_options(sketched, epsilon);
  if (objective.x().size() != x0.size() || objective.x() != x0) objective.move_to(x0);
  return Iteration(objective, A, sketched, epsilon).run(options, sampling);
}

}  // namespace attnreg
