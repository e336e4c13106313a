#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "certificate/certify.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "losses/losses.hpp"
#include "newton/journal.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/activity.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"
#include "regression/one_regression.hpp"
#include "regression/row_space.hpp"
#include "regression/solve_cost.hpp"
#include "rows/joint_passes.hpp"

namespace attnreg {

std::string_view method_name(Method method) {
  constexpr std::array<std::string_view, 5> names{"auto", "newton", "newton-cg", "sketched-newton", "surrogate"};
  return names.at(static_cast<std::size_t>(method));
}

std::string_view start_name(Start start) {
  constexpr std::array<std::string_view, 5> names{"auto", "zero", "cross-entropy", "given", "random"};
  return names.at(static_cast<std::size_t>(start));
}

namespace {

/// Collective. x, the `name` of an argument.
void check_point(const RowMatrix& A, const VectorXd& x, const std::string& name) {
  if (!A.communicator().is_replicated({x.data(), static_cast<std::size_t>(x.size())}))
    refuse(name + " must be the same on all ranks");
  if (x.size() != A.columns())
    refuse(name + " has " + std::to_string(x.size()) + " values for " + std::to_string(A.columns()) + " columns of A");
  for (Index j = 0; j < x.size(); ++j)
    if (!std::isfinite(x[j]))
      refuse(name + " is " + text_of(x[j]) + " at column " + std::to_string(j) + " (counted from 0)");
}

/// Collective. b: of one target or several.
void check_arguments(const RowMatrix& A, const Eigen::Ref<const MatrixXd>& b, const RidgeWeights& w) {
  A.communicator().agree([&] {
    const VectorXd& weights = w.numbers();
    const auto check_square = [&](Index i) {
      const double weight = weights[i], square = weight * weight;
      if (!std::isfinite(square) || (square == 0 && weight != 0))
        throw InvalidArgument("the weight" + (w.are_equal() ? "" : " of row " + std::to_string(A.first_row() + i)) +
                              ", " + text_of(weight) + ", has a square that double does not hold");
    };
    const auto require_finite_rows_of = [&](const char* name, const Eigen::Ref<const MatrixXd>& values) {
      for (Index j = 0; j < values.cols(); ++j)
        for (Index i = 0; i < values.rows(); ++i)
          if (!std::isfinite(values(i, j)))
            throw InvalidArgument(std::string(name) + " is " + text_of(values(i, j)) + " at row " +
                                  std::to_string(A.first_row() + i) +
                                  (values.cols() > 1 ? ", column " + std::to_string(j) : "") + " (counted from 0)");
    };
    const auto rows = std::to_string(A.rows_local());
    if (b.rows() != A.rows_local())
      throw InvalidArgument("b has " + std::to_string(b.rows()) + " values for " + rows + " local rows of A");
    if (!w.are_equal() && weights.size() != A.rows_local())
      throw InvalidArgument("w has " + std::to_string(weights.size()) + " values for " + rows + " local rows of A");
    require_finite_rows_of("b", b);
    require_finite_rows_of("w", weights);
    for (Index i = 0; i < weights.size(); ++i) check_square(i);
  });
}

/// Collective. What is 0, or of no account, where rows are masked.
void check_masked(const RowMatrix& A, const Eigen::Ref<const MatrixXd>& b, const RegressionModel& model) {
  check_offset(A, model);
  if (!model.offset || model.loss != "cross-entropy") return;
  A.communicator().agree([&] {
    for (Index j = 0; j < b.cols(); ++j)
      for (Index i = 0; i < b.rows(); ++i)
        if (b(i, j) != 0 && std::isinf((*model.offset)[i]))
          throw InvalidArgument("b is " + text_of(b(i, j)) + " at row " + std::to_string(A.first_row() + i) +
                                (b.cols() > 1 ? ", column " + std::to_string(j) : "") +
                                " (counted from 0), which offset masks with -inf: the cross-entropy is infinite; " +
                                "expected 0 there");
  });
}

void check_arguments(const RowMatrix& A, const Eigen::Ref<const MatrixXd>& b, const RidgeWeights& w,
                     const RegressionOptions& options) {
  check_arguments(A, b, w);
  check_masked(A, b, options);
  if (options.start == Start::given) check_point(A, options.x0, "x0");
}

bool sees_shift(const RegressionModel& model) { return !make_loss(model.loss)->is_shift_invariant(); }

/// Collective. Offsets are checked.
std::shared_ptr<const ScaledColumns> scaled_columns(const RowMatrix& A, const RegressionModel& model) {
  if (!(model.ridge >= 0 && std::isfinite(model.ridge)))
    refuse("the ridge is " + text_of(model.ridge) + "; expected a finite number >= 0");
  auto columns = std::make_shared<ScaledColumns>(A, !sees_shift(model), logit_offsets(A, model));
  if (model.ridge > 0) columns->add_ridge(model.ridge, model.ridge_scaled);
  return columns;
}

/// Collective. Likewise, for a solve: an audit's hashes are made in the same read.
std::shared_ptr<const ScaledColumns> columns_of_solve(const RowMatrix& A, const RegressionOptions& options) {
  if (options.audit > 0 && !solves_in_row_space(A.rows_global(), A.columns(), options)) A.passes().hash_in_next_pass();
  return scaled_columns(A, options);
}

/// Collective. In the caller's columns; only a scaled ridge needs to know their sizes.
std::shared_ptr<const ScaledColumns> columns_as_they_are(const RowMatrix& A, const RegressionModel& model) {
  auto columns = std::make_shared<ScaledColumns>(A);
  if (!(model.ridge > 0 && model.ridge_scaled)) {
    columns->add_to_logits(logit_offsets(A, model));
    if (model.ridge != 0) columns->add_ridge(model.ridge, false);
    return columns;
  }
  const auto scaled = scaled_columns(A, model);
  columns->add_to_logits(scaled->logit_offsets());
  columns->add_ridge(scaled->ridge().cwiseQuotient(scaled->factor().cwiseAbs2()));
  return columns;
}

/// Replicated.
Index targets_in_batch(const RowMatrix& A) {
  const double rows = static_cast<double>(A.rows_global()) / A.communicator().size();
  return static_cast<Index>(targets_at_once(rows, rows * static_cast<double>(A.columns())));
}

bool is_stopped(const RegressionResult& result) { return result.summary.termination == Termination::stopped; }

/// What stands for a target that a stop left out: x = 0.
RegressionResult left_out(const RowMatrix& A) {
  RegressionResult result;
  result.x = VectorXd::Zero(A.columns());
  result.gradient = VectorXd::Constant(A.columns(), std::numeric_limits<double>::quiet_NaN());
  result.fitted = VectorXd::Zero(A.rows_local());
  result.summary.termination = Termination::stopped;
  result.summary.value = std::numeric_limits<double>::quiet_NaN();
  result.summary.relative_gradient = std::numeric_limits<double>::quiet_NaN();
  result.notes.push_back("stopped: left out, x = 0 and f = 0 are no result");
  return result;
}

/// Collective. Whether the weight of some row is not 0.
bool some_weight(const RowMatrix& A, const RidgeWeights& w) {
  const VectorXd& weights = w.numbers();
  return A.communicator().max(weights.size() > 0 ? weights.cwiseAbs().maxCoeff() : 0.0) > 0;
}

/// A path in columns that are there.
std::vector<RegressionResult> path_of(const std::shared_ptr<const ScaledColumns>& columns, const VectorXd& b,
                                      const std::vector<double>& weights, const RegressionOptions& options) {
  const RowMatrix& A = columns->A();
  std::vector<RegressionResult> results;
  std::unique_ptr<Regression> previous;
  RegressionOptions next = options;
  const RootClock clock(A.communicator());
  const double limit = options.newton.time_limit_seconds;
  for (const double weight : weights) {
    for (const auto& [of, report] : {std::pair{&next.newton.on_iteration, &options.newton.on_iteration},
                                     std::pair{&next.on_start_iteration, &options.on_start_iteration}})
      if (*report)
        *of = [weight, report](IterationRecord record) {
          record.weight = weight;
          (*report)(record);
        };
    if (std::isfinite(limit) && !results.empty()) {
      next.newton.time_limit_seconds = limit - clock.sum(A.communicator());
    }
    const bool stopped = A.communicator().is_stopped();
    if (!results.empty() && (stopped || !(next.newton.time_limit_seconds > 0))) {
      results.back().notes.push_back(over_text(stopped) + "the weights from " + text_of(weight) + " on were left out");
      break;
    }
    auto regression = std::make_unique<Regression>(columns, b, weight, next);
    if (previous) regression->objective().adopt_scores(previous->objective(), false);
    results.push_back(regression->run());
    next.start = Start::given;
    next.x0 = results.back().x;
    next.random_starts = 0;
    previous = std::move(regression);
  }
  return results;
}

/// Several targets in columns that are there.
std::vector<RegressionResult> targets_of(
    const std::shared_ptr<const ScaledColumns>& shared, const Eigen::MatrixXd& B, const RidgeWeights& w,
    const RegressionOptions& options,
    const std::function<void(int target, const IterationRecord& record)>& on_iteration) {
  const InPhase all(Phase::solve, true);  // targets take turns
  const RowMatrix& A = shared->A();
  shared->row_norms();  // once for all
  JointPasses passes(shared->A());
  struct JointTarget {
    VectorXd b;
    std::unique_ptr<Regression> regression{};
  };
  std::vector<RegressionResult> results(static_cast<std::size_t>(B.cols()));
  std::unique_ptr<JointTarget> first;  // its scores serve all, and its Gram matrix of the regulariser
  RegressionOptions own = options;
  // Samples of surrogates are each target's own, and their compensated A x gains little from company: what has most of
  // its work in products, which are shared, costs less.
  if (B.cols() > 1 && options.method == Method::automatic)
    own.method = cheaper_method(A.rows_global(), A.columns(), options.sampling);
  const RootClock clock(A.communicator());
  for (Index begin = 0; begin < B.cols(); begin += targets_in_batch(A)) {
    const auto before = static_cast<std::size_t>(begin);
    std::vector<std::unique_ptr<JointTarget>> batch;
    for (Index k = begin; k < std::min(begin + targets_in_batch(A), B.cols()); ++k)
      batch.push_back(std::make_unique<JointTarget>(JointTarget{B.col(k)}));
    if (begin > 0 && std::isfinite(options.newton.time_limit_seconds))
      own.newton.time_limit_seconds =
          std::max(std::numeric_limits<double>::min(), options.newton.time_limit_seconds - clock.sum(A.communicator()));
    const auto for_all = [&](const std::function<void(std::size_t)>& task) {
      std::vector<std::function<void()>> tasks;
      for (std::size_t k = 0; k < batch.size(); ++k) tasks.emplace_back([&task, k] { task(k); });
      passes.run(tasks);
    };
    for_all([&](std::size_t k) {
      RegressionOptions of_target = own;
      if (own.newton.journal)
        of_target.newton.journal = own.newton.journal->part("target " + std::to_string(before + k));
      if (on_iteration)
        of_target.newton.on_iteration = [&on_iteration, target = static_cast<int>(before + k)](const auto& record) {
          on_iteration(target, record);
        };
      const auto columns =
          std::make_shared<const ScaledColumns>(*shared, RowMatrix(shared->A().passes().joined(passes)));
      batch[k]->regression = std::make_unique<Regression>(columns, batch[k]->b, w, of_target);
    });
    for (auto& target : batch)
      if (first || target != batch.front())
        target->regression->share_scores_of(*(first ? first : batch.front())->regression);
    for (auto& target : batch) {
      Regression& regression = *target->regression;
      if (regression.wants_ridge_gram(static_cast<int>(B.cols()) - 1))
        regression.share_ridge_gram_of(*(first ? first : batch.front())->regression);
    }
    for_all([&](std::size_t k) { results[before + k] = batch[k]->regression->run(); });
    const bool stopped = std::any_of(results.begin() + begin, results.begin() + begin + std::ssize(batch), is_stopped);
    if (stopped) {  // each heard of it by a communicator of its own
      A.communicator().note_stop();
      for (std::size_t k = before + batch.size(); k < results.size(); ++k) results[k] = left_out(A);
      break;
    }
    if (!first) first = std::move(batch.front());
  }
  return results;
}

}  // namespace

RegressionEvaluation evaluate_regression(const RowMatrix& A, const VectorXd& b, const RidgeWeights& w,
                                         const VectorXd& x, const RegressionModel& model, bool with_hessian) {
  check_arguments(A, b, w);
  check_point(A, x, "x");
  check_masked(A, b, model);
  const auto columns = columns_as_they_are(A, model);
  RegressionObjective objective(columns, b, w, make_loss(model.loss));
  Point point = objective.evaluate(x);
  RegressionEvaluation result{point.value, objective.log_value(point), point.gradient, {}};
  if (!with_hessian) return result;
  result.hessian = objective.hessian_on_root(point).exact;
  if (!A.communicator().is_root()) result.hessian.resize(A.columns(), A.columns());
  A.communicator().broadcast(span_of(result.hessian));
  return result;
}

Certificate certify_regression(const RowMatrix& A, const VectorXd& b, const RidgeWeights& w, const VectorXd& x,
                               const RegressionModel& model, CertificateLevel level) {
  check_arguments(A, b, w);
  check_point(A, x, "x");
  check_masked(A, b, model);
  const auto columns = scaled_columns(A, model);
  RegressionObjective objective(columns, b, w, make_loss(model.loss));
  Point point = objective.evaluate(VectorXd::Zero(A.columns()));
  const double at_zero = objective.norm(point.gradient);
  const double reference = at_zero > objective.gradient_floor(point, at_zero) ? at_zero : 0;
  point = objective.evaluate(x.cwiseQuotient(columns->factor()));
  return certify(objective, point, {.level = level, .gradient_reference = reference});
}

RegressionResult solve_regression(const RowMatrix& A, const VectorXd& b, const RidgeWeights& w,
                                  const RegressionOptions& options) {
  const InPhase scan(Phase::scan);
  check_arguments(A, b, w, options);
  const auto columns = columns_of_solve(A, options);
  if (!solves_in_row_space(A.rows_global(), A.columns(), options)) return Regression(columns, b, w, options).run();
  const RowSpace space(columns, sees_shift(options), some_weight(A, w));
  RegressionResult result = Regression(space.columns(), b, w, space.options(options)).run();
  space.finish(b, w, options, result);
  return result;
}

std::vector<RegressionResult> solve_path(const RowMatrix& A, const VectorXd& b, const std::vector<double>& weights,
                                         const RegressionOptions& options) {
  const InPhase scan(Phase::scan);
  if (weights.empty()) refuse("a path needs at least one weight");
  check_arguments(A, b, weights.front(), options);
  const auto columns = columns_of_solve(A, options);
  if (!solves_in_row_space(A.rows_global(), A.columns(), options)) return path_of(columns, b, weights, options);
  const RowSpace space(columns, sees_shift(options),
                       std::ranges::any_of(weights, [](double weight) { return weight != 0; }));
  auto results = path_of(space.columns(), b, weights, space.options(options));
  for (std::size_t k = 0; k < results.size(); ++k) space.finish(b, weights[k], options, results[k]);
  return results;
}

std::vector<RegressionResult> solve_targets(
    const RowMatrix& A, const Eigen::MatrixXd& B, const RidgeWeights& w, const RegressionOptions& options,
    const std::function<void(int target, const IterationRecord& record)>& on_iteration) {
  const InPhase scan(Phase::scan);
  if (B.cols() < 1) refuse("there are no targets: B has no columns");
  check_arguments(A, B, w, options);
  const auto columns = columns_of_solve(A, options);
  if (!solves_in_row_space(A.rows_global(), A.columns(), options))
    return targets_of(columns, B, w, options, on_iteration);
  const RowSpace space(columns, sees_shift(options), some_weight(A, w));
  auto results = targets_of(space.columns(), B, w, space.options(options), on_iteration);
  for (Index k = 0; k < B.cols(); ++k) {
    const VectorXd b = B.col(k);
    space.finish(b, w, options, results[static_cast<std::size_t>(k)]);
  }
  return results;
}

}  // namespace attnreg
