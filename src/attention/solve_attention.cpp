#include "attnreg/attention_regression.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "algebra/dense_factors.hpp"
#include "attention/attention_objective.hpp"
#include "attention/attention_parameters.hpp"
#include "attention/attention_passes.hpp"
#include "attention/certify_attention.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/input_file.hpp"
#include "newton/minimise.hpp"
#include "newton/progress.hpp"
#include "numbers/random.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "regression/start_point.hpp"

namespace attnreg {

std::string_view method_name(AttentionMethod method) { return method == AttentionMethod::joint ? "joint" : "varpro"; }

std::string_view model_name(AttentionModel model) {
  switch (model) {
    case AttentionModel::automatic: return "auto";
    case AttentionModel::dense: return "dense";
    case AttentionModel::kronecker: return "kronecker";
  }
  return "unknown";
}

namespace {

using Eigen::ArrayXd;

constexpr double kStartTolerance = 1e-2;  // of the start's own |g(0)|, as for vector regressions
constexpr double kInColumnSpace = 1e-10;  // relative residual of A2 v = 1
constexpr double kSameMinimum = 1e-6;     // of L(0): values closer than that are one minimum
constexpr double kDescentSpread = 0.1;    // of the logits: nearly uniform attention
constexpr double kRandomSpread = 1;       // attention that tells keys apart, and is not saturated
constexpr double kMostOfRandom = 1e3;     // L(x0) / L(0) of a random start
constexpr double kRowSumSlack = 1e-3;     // |<b_j, 1> - 1| above which the form is degenerate, or B no attention

std::string shape_of(Index rows, Index columns) { return std::to_string(rows) + " x " + std::to_string(columns); }
std::string shape_of(const RowMajorMatrix& matrix) { return shape_of(matrix.rows(), matrix.cols()); }

std::string attention_text(const Loss& loss) {
  std::string text(loss.fitted_expression());
  for (auto at = text.find("A x"); at != text.npos; at = text.find("A x", at)) text.replace(at, 3, "A1 X A2^T");
  return text;
}

/// Of a rescaled loss, what its rows are made of: "exp(Z)".
std::string growth_text(const std::string& loss) { return loss.substr(loss.find('-') + 1) + "(Z)"; }

void check_sequence(const AttentionSequence& sequence, const AttentionSequence& first, std::string_view loss, int rank,
                    bool with_target) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw InvalidArgument(message);
  };
  const bool with_values = sequence.values.has_value();
  const Index rows = sequence.partition.rows_local(rank), n2 = sequence.keys.rows();
  require(sequence.partition.rows_global() > 0 && n2 > 0, "a sequence without queries or keys");
  require(sequence.queries.rows() == rows, "queries have " + std::to_string(sequence.queries.rows()) +
                                               " local rows, the partition says " + std::to_string(rows));
  require(!with_target || sequence.target.rows() == rows, "the target has " + std::to_string(sequence.target.rows()) +
                                                              " local rows, the queries have " + std::to_string(rows));
  require(with_values == first.values.has_value(), "some sequences have values, others not");
  require(sequence.queries.cols() == first.queries.cols() && sequence.keys.cols() == first.keys.cols(),
          "sequences with queries and keys of different width share no X");
  require(sequence.queries.cols() > 0 && sequence.keys.cols() > 0, "queries and keys need at least one column");
  if (with_values) {
    require(loss == "softmax", "values go with the loss softmax only");
    require(!sequence.weights, "values and weights exclude each other");
    require(sequence.values->rows() == n2, "values are " + shape_of(*sequence.values) +
                                               ", expected one row for each of " + std::to_string(n2) + " keys");
    require(sequence.values->cols() > 0 && sequence.target.cols() > 0, "values and target need at least one column");
    require(sequence.values->cols() == first.values->cols() && sequence.target.cols() == first.target.cols(),
            "sequences with values and targets of different width share no Y");
    require(sequence.values->allFinite(), "values have numbers that are not finite");
  } else {
    require(!with_target || sequence.target.cols() == n2, "the target has " + std::to_string(sequence.target.cols()) +
                                                              " columns, expected one for each of " +
                                                              std::to_string(n2) + " keys");
  }
  if (sequence.mask) VisibleKeys check(*sequence.mask, sequence.partition, rank, n2);
  if (sequence.weights) {
    require(sequence.weights->rows() == rows && sequence.weights->cols() == n2,
            "weights are " + shape_of(*sequence.weights) + " on this rank, expected " + shape_of(sequence.target));
    require(sequence.weights->allFinite(), "weights have numbers that are not finite");
  }
  const auto finite = [](const RowMajorMatrix& matrix) { return find_non_finite(span_of(matrix)).count == 0; };
  require(finite(sequence.queries) && finite(sequence.keys) && finite(sequence.target),
          "queries, keys or target have numbers that are not finite");
}

/// What the targets' rows sum to, over all sequences.
struct TargetRows {
  double largest_miss = 0;  ///< max_j |<b_j, 1> - 1|
  double negative = 0;      ///< numbers < 0
  double low = 0;           ///< numbers that the loss cannot reach
  double zero_rows = 0;     ///< rows without a positive number
  double hidden = 0;        ///< numbers other than 0 at keys that a mask hides, which the others do not count
};

TargetRows describe(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                    const Loss& loss) {
  TargetRows found;
  for (const auto& sequence : sequences) {
    std::optional<VisibleKeys> mask;
    if (sequence.mask && !sequence.values)
      mask.emplace(*sequence.mask, sequence.partition, communicator.rank(), sequence.keys.rows());
    std::vector<Index> visible;
    for (Index j = 0; j < sequence.target.rows(); ++j) {
      ArrayXd b = sequence.target.row(j).transpose().array();
      const auto nonzero = static_cast<double>((b != 0).count());
      if (mask) {
        mask->list(j, visible);
        b = gathered(b, visible);
        found.hidden += nonzero - static_cast<double>((b != 0).count());
      }
      found.largest_miss = std::max(found.largest_miss, std::abs(b.sum() - 1));
      found.negative += static_cast<double>((b < 0).count());
      found.low += static_cast<double>((b < loss.infimum()).count());
      found.zero_rows += (b > 0).any() ? 0 : 1;
    }
  }
  std::array<double, 4> sums{found.negative, found.low, found.zero_rows, found.hidden};
  communicator.sum(sums);
  return {communicator.max(found.largest_miss), sums[0], sums[1], sums[2], sums[3]};
}

/// Whether A2 v = 1 for one v and the keys of all sequences that some query sees. seen: `AttentionPasses::seen`.
bool ones_in_columns_of_keys(const std::vector<AttentionSequence>& sequences, const std::vector<VectorXd>& seen) {
  Index rows = 0;
  for (const auto& counts : seen) rows += (counts.array() > 0).count();
  Eigen::MatrixXd keys(rows, sequences[0].keys.cols());
  rows = 0;
  for (std::size_t k = 0; k < seen.size(); ++k)
    for (Index key = 0; key < seen[k].size(); ++key)
      if (seen[k][key] > 0) keys.row(rows++) = sequences[k].keys.row(key);
  const VectorXd ones = VectorXd::Ones(rows), v = least_squares(keys, ones);
  return (keys * v - ones).norm() <= kInColumnSpace * ones.norm();
}

/// One solve, from checked arguments on.
class AttentionSolve {
 public:
  AttentionSolve(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                 const AttentionShape& shape, const AttentionOptions& options)
      : communicator_(communicator),
        sequences_(sequences),
        shape_(shape),
        options_(options),
        parameters_(shape.d1, shape.d2, options.rank),
        passes_(communicator, sequences, shape, options.loss),
        target_(describe(communicator, sequences, loss())) {
    result_.model = options.model;
    if (options.model == AttentionModel::automatic) choose_model();
    warn();
  }

  AttentionResult run() {
    const InPhase solving(Phase::solve);
    AttentionObjective objective(passes_, parameters_, options_.method, result_.model);
    NewtonOptions newton = options_.newton;
    const bool refers_to_zero = newton.gradient_reference == 0 && !parameters_.is_low_rank();
    Point point = objective.evaluate(VectorXd::Zero(objective.dimension()));
    const double value_at_zero = point.value;
    if (refers_to_zero) {
      newton.gradient_reference = objective.norm(point.gradient);
      if (newton.gradient_reference <=
          objective.gradient_floor(point, newton.gradient_reference)) {  // X = 0 is stationary
        newton.gradient_reference = 0;
        newton.reference = GradientReference::largest;
      }
    }
    const auto start_of = [&](const Start kind, const std::string& name, const AttentionUnknowns& at) {
      return StartPoint{objective.unknowns(parameters_.nearest(communicator_, at.X), at.Y), kind, name,
                        start_iterations_};
    };
    const Start kind = start_kind();
    const std::string name(kind == Start::given ? "file" : kind == Start::random ? "random 0" : start_name(kind));
    const StartPoint first = [&] {
      const InPhase starting(Phase::start);
      const AttentionUnknowns at = starting_point(kind);
      return start_of(kind, name, at);
    }();
    const auto solve = [&](const StartPoint& start) {
      start_at(objective, point, start, loss(), value_at_zero, result_.notes);
      newton.on_iteration = with_start(options_.newton.on_iteration, start.name);
      const NewtonSummary summary = newton_cg(objective, point, newton);
      newton.gradient_reference = summary.gradient_reference;
      if (options_.random_starts > 0) note_cut_off("the solve from " + start.name, summary, result_.notes);
      return summary;
    };
    const auto random = [&](int k) -> std::optional<StartPoint> {
      if (k > options_.random_starts) return std::nullopt;
      const bool stopped = communicator_.is_stopped();
      if (stopped || !(point.seconds < newton.time_limit_seconds)) {
        note_starts_left_out(stopped, k, options_.random_starts, result_.notes);
        return std::nullopt;
      }
      StartPoint start = start_of(Start::random, "random " + std::to_string(k), random_start(k, kRandomSpread));
      start.most = kMostOfRandom;
      return start;
    };
    solve_from_starts(objective, point, first, options_.random_starts > 0, kSameMinimum * std::abs(value_at_zero),
                      solve, random, result_);
    describe_end(loss(), "X", result_.summary.value <= 1e-20 * value_at_zero, value_at_zero, result_);
    take_result(objective, point);
    AttentionCertificateOptions certificate{options_.certificate, result_.summary.gradient_reference};
    certificate.seed = options_.seed;
    certificate.time_limit_seconds = newton.time_limit_seconds;
    result_.certificate = certify_attention(objective, passes_, sequences_, parameters_, point, certificate);
    if (is_converged(result_.summary) && result_.certificate.kind == StationaryKind::saddle)
      result_.summary.termination = Termination::saddle;
    note_stop(communicator_.is_stopped(), result_);
    return std::move(result_);
  }

 private:
  const Loss& loss() const { return passes_.loss(); }
  RowMajorMatrix zero() const { return RowMajorMatrix::Zero(shape_.d1, shape_.d2); }
  RowMajorMatrix zero_Y() const { return RowMajorMatrix::Zero(shape_.d3, shape_.dv); }
  void choose_model();
  void warn();
  Start start_kind() const;
  AttentionUnknowns starting_point(Start kind);
  AttentionUnknowns cross_entropy_start();
  AttentionUnknowns descent_start();
  AttentionUnknowns random_start(int number, double spread);
  RowMajorMatrix with_spread(const RowMajorMatrix& X, double spread);
  AttentionUnknowns with_best_Y(const RowMajorMatrix& X);
  void take_result(const AttentionObjective& objective, const Point& point);

  const Communicator& communicator_;
  const std::vector<AttentionSequence>& sequences_;
  AttentionShape shape_;
  const AttentionOptions& options_;
  AttentionParameters parameters_;
  AttentionPasses passes_;
  TargetRows target_;
  int start_iterations_ = 0;
  AttentionResult result_;
};

void AttentionSolve::choose_model() {
  const bool dense = shape_.unknowns() <= options_.dense_limit;
  result_.model = dense ? AttentionModel::dense : AttentionModel::kronecker;
  result_.notes.push_back("model " + std::string(model_name(result_.model)) + ": [X; Y] has " +
                          std::to_string(shape_.unknowns()) + " numbers, dense models are made up to " +
                          std::to_string(options_.dense_limit));
}

void AttentionSolve::warn() {
  if (const std::string text = missing_mask(communicator_, sequences_); !text.empty()) result_.warnings.push_back(text);
  if (shape_.dv > 0) return;  // any B will do
  const auto seen = passes_.seen();
  const bool weighted =
      std::ranges::any_of(sequences_, [](const auto& sequence) { return sequence.weights.has_value(); });
  const bool centred = loss().form() == HessianForm::centred;
  const bool off = target_.largest_miss > kRowSumSlack;
  const std::string miss = text_of(target_.largest_miss), u = growth_text(options_.loss);
  const auto warn_if = [&](bool condition, const std::string& text) {
    if (condition) result_.warnings.push_back(text);
  };
  warn_if(target_.hidden > 0, text_of(target_.hidden) +
                                  " numbers of B that are not 0 are at keys that the mask hides: "
                                  "they do not count");
  warn_if(
      options_.loss == "rescaled-exp" && !weighted,
      "form rescaled without weights: L tends to its infimum 0 where all logits tend to -infinity; it has a minimum "
      "elsewhere only if the data allow it, add weights");
  warn_if(loss().form() == HessianForm::coupled && off,
          "a row of B sums to 1 up to " + miss + " only: " + u + " = diag(" + u + " 1) B has no solution");
  warn_if(centred && (off || target_.negative > 0), "rows of B are no distributions: sums are off 1 by up to " + miss +
                                                        ", " + text_of(target_.negative) +
                                                        " numbers are negative; F cannot reproduce them");
  warn_if(!centred && target_.low > 0, text_of(target_.low) + " numbers of B are below " + text_of(loss().infimum()) +
                                           ": " + attention_text(loss()) + " is not");
  warn_if(loss().vanishes_at_zero(),
          "X = 0 is a global minimiser of this loss whatever B is, with L = 0; a minimum elsewhere is a local one, and "
          "the solve starts at a random point");
  warn_if(centred && !weighted && ones_in_columns_of_keys(sequences_, seen),
          "the keys have the ones vector in their column space: X is determined up to y v^T with A2 v = 1 only");
}

Start AttentionSolve::start_kind() const {
  const bool distributions = shape_.dv == 0 && target_.zero_rows == 0;
  if (options_.start == Start::cross_entropy && !(distributions && loss().fitted_expression() == "softmax(A x)"))
    refuse(
        "the start cross-entropy needs a loss that fits softmax(A1 X A2^T), no values, and a positive number in every "
        "row of B");
  if (options_.start != Start::automatic) return options_.start;
  if (deviation_of_start(loss()) > 0) return Start::random;
  return options_.loss == "softmax" && distributions ? Start::cross_entropy : Start::zero;
}

AttentionUnknowns AttentionSolve::starting_point(Start kind) {
  const double deviation = deviation_of_start(loss());
  switch (kind) {
    case Start::given: return {options_.x0.X, options_.x0.Y.size() > 0 ? options_.x0.Y : zero_Y()};
    case Start::cross_entropy: return cross_entropy_start();
    case Start::random:
      result_.notes.push_back("start random: X = 0 is stationary for the loss " + options_.loss +
                              "; logits of standard deviation " + text_of(deviation));
      return random_start(0, deviation);
    default: break;
  }
  if (parameters_.is_low_rank() || shape_.dv > 0) return descent_start();
  return {zero(), zero_Y()};
}

/// A rough minimiser of the convex cross-entropy with target max(B, 0), rows scaled to sum 1, and no regulariser but W.
AttentionUnknowns AttentionSolve::cross_entropy_start() {
  std::vector<AttentionSequence> sequences = sequences_;
  for (auto& sequence : sequences) {
    sequence.target = sequence.target.cwiseMax(0);
    if (sequence.mask)
      VisibleKeys(*sequence.mask, sequence.partition, communicator_.rank(), sequence.keys.rows())
          .fill_hidden(sequence.target, 0, 0, 0);
    const VectorXd sums = sequence.target.rowwise().sum();
    sequence.target = sums.cwiseInverse().asDiagonal() * sequence.target;
  }
  AttentionPasses passes(communicator_, sequences, shape_, "cross-entropy");
  const AttentionParameters full(shape_.d1, shape_.d2, 0);
  AttentionObjective objective(passes, full, AttentionMethod::joint, AttentionModel::kronecker);
  NewtonOptions newton = options_.newton;
  newton.relative_tolerance = kStartTolerance;
  newton.gradient_reference = 0;
  newton.on_iteration = options_.on_start_iteration;
  newton.time_limit_seconds =
      std::max(newton.time_limit_seconds - passes_.seconds(), std::numeric_limits<double>::min());
  Point point = objective.evaluate(VectorXd::Zero(full.size()));
  const NewtonSummary summary = newton_cg(objective, point, newton);
  start_iterations_ = summary.iterations;
  note_cut_off("the cross-entropy start", summary, result_.notes);
  return objective.state_of(point).at;
}

void AttentionSolve::take_result(const AttentionObjective& objective, const Point& point) {
  result_.unknowns = objective.state_of(point).at;
  result_.fitted = attention_text(loss());
  if (parameters_.is_low_rank()) {
    const VectorXd u = point.x.head(parameters_.size());
    result_.P = parameters_.P(u);
    result_.Q = parameters_.Q(u);
  }
  const auto& evaluation = objective.state_of(point).evaluation;
  result_.error = evaluation.misfit == 0 ? 0 : std::sqrt(evaluation.misfit / evaluation.target);
}

/// X scaled so that the root mean square of the logits of visible keys is `spread`; X itself where all are 0.
RowMajorMatrix AttentionSolve::with_spread(const RowMajorMatrix& X, double spread) {
  const RowMajorMatrix sums = passes_.sum({{1, 2}}, [&](const QueryBlock& block, MatrixSums& part) {
    part[0](0, 0) += block.logits(X).squaredNorm();
    part[0](0, 1) += block.counts().sum();
  })[0];
  const double size = std::sqrt(sums(0, 0) / sums(0, 1));
  return size > 0 && std::isfinite(size) ? RowMajorMatrix(spread / size * X) : X;
}

AttentionUnknowns AttentionSolve::with_best_Y(const RowMajorMatrix& X) {
  if (!passes_.with_values()) return {X, zero_Y()};
  const AttentionParameters full(shape_.d1, shape_.d2, 0);
  AttentionObjective objective(passes_, full, AttentionMethod::varpro, AttentionModel::kronecker);
  return objective.state_of(objective.evaluate(full.nearest(communicator_, X))).at;
}

/// Along the descent from X = 0 with Y = argmin_Y there: at X = 0 itself P and Q have no gradient, and neither has X
/// where Y = 0.
AttentionUnknowns AttentionSolve::descent_start() {
  const AttentionUnknowns origin = with_best_Y(zero());
  return with_best_Y(with_spread(-passes_.evaluate(origin).gradient.X, kDescentSpread));
}

AttentionUnknowns AttentionSolve::random_start(int number, double spread) {
  RowMajorMatrix X = zero();
  RandomStream(options_.seed, Purpose::random_starts).normals(number, span_of(X));
  return with_best_Y(with_spread(parameters_.X(parameters_.nearest(communicator_, X)), spread));
}

}  // namespace

AttentionShape check_sequences(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                               std::string_view loss, bool with_targets) {
  communicator.agree([&] {
    if (sequences.empty()) throw InvalidArgument("there is no sequence");
    for (std::size_t k = 0; k < sequences.size(); ++k) try {
        check_sequence(sequences[k], sequences[0], loss, communicator.rank(), with_targets);
      } catch (const InvalidArgument& error) {
        throw InvalidArgument("sequence " + std::to_string(k) + ": " + error.what());
      }
  });
  const auto& first = sequences[0];
  AttentionShape shape{first.queries.cols(), first.keys.cols(), 0, 0};
  if (first.values) shape = {shape.d1, shape.d2, first.values->cols(), first.target.cols()};
  return shape;
}

AttentionEvaluation evaluate_attention(const Communicator& communicator,
                                       const std::vector<AttentionSequence>& sequences, std::string_view loss,
                                       const AttentionUnknowns& at, bool with_hessian) {
  const AttentionShape shape = check_sequences(communicator, sequences, loss);
  if (at.X.rows() != shape.d1 || at.X.cols() != shape.d2 || at.Y.rows() != shape.d3 || at.Y.cols() != shape.dv)
    refuse("X is " + shape_of(at.X) + " and Y " + shape_of(at.Y) + ", expected " + shape_of(shape.d1, shape.d2) +
           " and " + shape_of(shape.d3, shape.dv));
  AttentionPasses passes(communicator, sequences, shape, loss);
  const AttentionParameters full(shape.d1, shape.d2, 0);
  AttentionObjective objective(passes, full, AttentionMethod::joint, AttentionModel::kronecker);
  const Point point = objective.evaluate(objective.unknowns(full.nearest(communicator, at.X), at.Y));
  AttentionEvaluation result{point.value, objective.state_of(point).evaluation.gradient, {}};
  if (!with_hessian) return result;
  const Index D = objective.dimension();
  result.hessian.resize(D, D);
  for (Index j = 0; j < D; ++j) {
    const VectorXd unit = VectorXd::Unit(D, j);
    const AttentionUnknowns column =
        passes.hessian_product(at, {full.X(unit.head(full.size())), objective.Y_part(unit)});
    result.hessian.col(j) = objective.unknowns(flat(column.X), column.Y);
  }
  return result;
}

AttentionResult solve_attention(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                const AttentionOptions& options) {
  const AttentionShape shape = check_sequences(communicator, sequences, options.loss);
  require(options.rank >= 0 && options.rank <= std::min(shape.d1, shape.d2),
          "the rank is " + std::to_string(options.rank) +
              ", expected 0 to min(d1, d2) = " + std::to_string(std::min(shape.d1, shape.d2)));
  require(options.random_starts >= 0, "random_starts must be >= 0");
  require(options.dense_limit >= 1, "dense_limit must be at least 1");
  if (options.start == Start::given) {
    require(options.x0.X.allFinite() && options.x0.Y.allFinite(), "x0 must be finite");
    require(options.x0.X.rows() == shape.d1 && options.x0.X.cols() == shape.d2,
            "x0 is " + shape_of(options.x0.X) + ", expected " + shape_of(shape.d1, shape.d2));
    require(options.x0.Y.size() == 0 || (options.x0.Y.rows() == shape.d3 && options.x0.Y.cols() == shape.dv),
            "Y of x0 is " + shape_of(options.x0.Y) + ", expected " + shape_of(shape.d3, shape.dv));
  }
  const InPhase scan(Phase::scan);
  return AttentionSolve(communicator, sequences, shape, options).run();
}

}  // namespace attnreg
