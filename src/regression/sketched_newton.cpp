#include "regression/sketched_newton.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "attnreg/error.hpp"
#include "attnreg/leverage.hpp"
#include "certificate/global_convexity.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "newton/line_search.hpp"
#include "newton/progress.hpp"
#include "ranks/span_of.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kGain = 2.5;        // a step shrinks |x - x*| by 0.4
constexpr double kBeta = 0.5;        // approximate scores are within a factor 2 of the true ones
constexpr double kSlack = 1 + 1e-6;  // covers the rounding of the bound's own few operations

void check_options(const SketchedNewtonOptions& options, double epsilon) {
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

/// Collective. v^T H v for the columns v of V. One read.
VectorXd exact_curvatures(const RegressionObjective& objective, const Point& point, const MatrixXd& V) {
  const RowCurvatures& curvatures = objective.curvatures(point);
  const VectorXd means = V.transpose() * RegressionObjective::state_of(point).centre;
  const VectorXd zero = VectorXd::Zero(V.cols());
  VectorXd sums = objective.A().passes().pass(zero, [&](const Tile& tile, VectorXd& sum) {
    const MatrixXd Y = tile.dense() * V;
    const auto of_tile = [&](const auto& rows) { return rows.segment(tile.first_local(), Y.rows()).array(); };
    const Eigen::ArrayXd squares = of_tile(curvatures.delta) + of_tile(objective.weights_squared());
    for (Index k = 0; k < Y.cols(); ++k)
      sum[k] += (squares * Y.col(k).array().square() - 2 * means[k] * of_tile(curvatures.m()) * Y.col(k).array() +
                 means[k] * means[k] * of_tile(curvatures.k()))
                    .sum();
  });
  objective.A().communicator().sum(span_of(sums));
  for (Index k = 0; k < V.cols(); ++k) sums[k] += 2 * objective.column_terms().value(V.col(k));
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
    MatrixXd V = normals;
    if (probes > 0) cholesky.lower().triangularView<Eigen::Lower>().adjoint().solveInPlace(V);
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
  Iteration(RegressionObjective& objective, Point& point, const SketchedNewtonOptions& options,
            const SamplingOptions& sampling, double epsilon)
      : objective_(objective),
        A_(objective.A()),
        point_(point),
        options_(options),
        sampling_(sampling),
        epsilon_(epsilon) {
    result_.convexity = global_convexity(objective).convexity;
    result_.distance_bound = distance_bound();
    if (!objective.is_stopped()) plan();
  }

  SketchedNewtonSummary run(NewtonOptions options) {
    if (decides_by_distance()) options.relative_tolerance = std::numeric_limits<double>::min();
    if (draws_ == 0) plan_draws(options.max_iterations);
    Progress progress(objective_, point_, options);
    if (progress.was_finished()) return finish(progress.summary());
    result_.distance_bound = distance_bound();
    for (auto step = static_cast<std::uint32_t>(progress.iterations());; ++step) {
      if (near_enough()) return finish(progress.summary(Termination::converged));
      if (progress.finished()) return finish(progress.summary());
      if (result_.step_limit > 0 && step >= static_cast<std::uint32_t>(result_.step_limit)) {
        note("all T = " + std::to_string(result_.step_limit) + " steps were used up");
        return finish(progress.summary(Termination::iteration_limit));
      }
      if (!take_step(step, progress))
        return finish(progress.summary(progress.is_stopped() ? Termination::stopped : Termination::breakdown));
      if (progress.leaves_checkpoint(progress.radius())) return run(options);
    }
  }

 private:
  bool decides_by_distance() const { return result_.convexity > 0 && epsilon_ > 0; }
  void note(std::string text) { result_.notes.push_back(std::move(text)); }
  double distance_bound();
  bool near_enough();
  void plan();
  void plan_draws(int max_iterations);
  Model sampled_hessian(std::uint32_t step);
  SampledRows draw(const VectorXd& D, std::uint32_t step) const;
  bool take_step(std::uint32_t step, Progress& progress);
  SketchedNewtonSummary finish(NewtonSummary summary);

  RegressionObjective& objective_;
  const RowMatrix& A_;
  Point& point_;
  const SketchedNewtonOptions& options_;
  const SamplingOptions& sampling_;
  double epsilon_;
  std::int64_t draws_ = 0;  // of a step
  SketchedNewtonSummary result_;
};

double Iteration::distance_bound() {
  if (!(result_.convexity > 0)) return kInfinity;
  const auto& columns = objective_.columns();
  const double units = columns.scale().cwiseQuotient(columns.factor()).maxCoeff();  // |g| <= units |g|_s
  const double bound = kSlack *
                       (objective_.callers_norm(point_.gradient) +
                        units * objective_.gradient_floor(point_, objective_.norm(point_.gradient))) /
                       result_.convexity;
  return std::isfinite(bound) ? bound : kInfinity;
}

/// Whether |x - x*| <= epsilon is certified, with the gradient of a fresh A x.
bool Iteration::near_enough() {
  if (!decides_by_distance() || !(result_.distance_bound <= epsilon_)) return false;
  if (!objective_.state_of(point_).is_fresh()) {
    point_ = objective_.refreshed(std::move(point_));
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

void Iteration::plan_draws(int max_iterations) {
  const int steps = result_.step_limit > 0 ? result_.step_limit : std::max(1, max_iterations);
  draws_ = with_replacement_size(A_.columns(), options_.sampling_error, options_.delta / steps, kBeta);
  if (draws_ >= A_.rows_global())
    note("all rows are used: a sample would take " + std::to_string(draws_) + " draws of " +
         std::to_string(A_.rows_global()) + " rows");
}

SampledRows Iteration::draw(const VectorXd& D, std::uint32_t step) const {
  const auto scores = leverage_scores(A_, D.cwiseAbs(),
                                      {.sketch_rows = sampling_.sketch_rows,
                                       .nonzeros = sampling_.nonzeros,
                                       .jl_columns = sampling_.jl_columns,
                                       .seed = sampling_.seed,
                                       .iteration = step});
  return sample_with_replacement(A_, scores.scores, {.draws = draws_, .seed = sampling_.seed, .iteration = step});
}

/// `step` keys the random numbers.
Model Iteration::sampled_hessian(std::uint32_t step) {
  const OnStop on_stop = on_stop_in_gram(A_);
  const bool all_rows = draws_ >= A_.rows_global(), low_rank = options_.keep_low_rank;
  if (all_rows && low_rank) return {objective_.hessian_on_root(point_, on_stop).exact, 0, A_.rows_global()};
  const RowCurvatures& curvatures = objective_.curvatures(point_);
  const VectorXd D = curvatures.delta + objective_.weights_squared();
  const Index d = A_.columns(), entries = d * d;
  Model model{{}, all_rows ? 0 : draws_, A_.rows_global()};
  VectorXd message(entries + d + 1);  // A^T D~ A, u, sum delta
  WeightedRows rows{D};
  if (!all_rows) {
    const SampledRows sample = draw(D, step);
    rows = rows.choose(sample.rows, sample.weights);
    model.rows = sample.count_global;
    A_.passes().count_reads(static_cast<double>(model.rows) / static_cast<double>(A_.rows_global()));
  }
  const SignedGram gram = signed_gram(A_, rows, {}, on_stop);
  message.head(entries) = (gram.positive - gram.negative).reshaped();
  message.segment(entries, d) = low_rank ? VectorXd(A_.passes().transpose_multiply(curvatures.m())) : VectorXd::Zero(d);
  message[entries + d] = low_rank ? curvatures.k().sum() : 0;
  A_.communicator().sum_to_root(span_of(message));
  if (is_left(A_, on_stop) || !A_.communicator().is_root()) return model;
  model.matrix = message.head(entries).reshaped(d, d);
  if (!objective_.column_terms().is_zero()) model.matrix += objective_.column_terms().hessian();
  if (!low_rank) return model;
  // [abar, u] S [abar, u]^T = -(v abar^T + abar v^T)
  const VectorXd& centre = objective_.state_of(point_).centre;
  const VectorXd v = message.segment(entries, d) - 0.5 * message[entries + d] * centre;
  model.matrix -= v * centre.transpose() + centre * v.transpose();
  return model;
}

/// False if H~ is not positive definite, or the run was stopped; then the point stays.
bool Iteration::take_step(std::uint32_t step, Progress& progress) {
  const Model model = sampled_hessian(step);
  if (progress.is_stopped()) return false;
  const MatrixXd normals = gaussian_probes(A_.columns(), options_.probes, sampling_.seed, step);
  const Step newton_step = solve(A_.communicator(), model.matrix, point_.gradient, normals);
  if (!newton_step.definite) {
    note("H~ is not positive definite in step " + std::to_string(step + 1) +
         ": the method needs weights w large enough to make H so; use another one");
    return false;
  }
  SketchedStep record{.iteration = static_cast<int>(step) + 1, .draws = model.draws, .rows = model.rows};
  record.sampling_error = options_.probes > 0 ? largest_error(newton_step.curvatures,
                                                              exact_curvatures(objective_, point_, newton_step.probes))
                                              : std::numeric_limits<double>::quiet_NaN();
  const double value = point_.value;
  point_ = objective_.step(std::move(point_), objective_.direction(newton_step.s), {.t = 1});
  progress.stepped({.t = 1, .change = point_.value - value});
  record.distance_bound = result_.distance_bound = distance_bound();
  result_.steps.push_back(record);
  if (options_.on_step) options_.on_step(record);
  return true;
}

SketchedNewtonSummary Iteration::finish(NewtonSummary summary) {
  result_.distance_bound = distance_bound();
  measure(objective_, point_, summary);  // of the point made anew
  if (decides_by_distance() && !(result_.distance_bound <= epsilon_)) {
    note("|x - x*| <= " + text_of(result_.distance_bound) + " is certified, not epsilon = " + text_of(epsilon_));
    if (summary.termination == Termination::converged) summary.termination = Termination::converged_rounding;  // g = 0
  }
  result_.newton = summary;
  return std::move(result_);
}

}  // namespace

SketchedNewtonSummary sketched_newton(RegressionObjective& objective, Point& point, const NewtonOptions& options,
                                      const SketchedNewtonOptions& sketched, const SamplingOptions& sampling,
                                      double epsilon) {
  check(options);
  check_options(sketched, epsilon);
  return Iteration(objective, point, sketched, sampling, epsilon).run(options);
}

}  // namespace attnreg
