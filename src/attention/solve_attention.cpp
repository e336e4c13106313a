#include "attnreg/attention_regression.hpp"

#include <cmath>

#include "algebra/dense_factors.hpp"
#include "attention/attention_objective.hpp"
#include "attention/attention_parameters.hpp"
#include "attention/attention_passes.hpp"
#include "errors/text_of.hpp"
#include "newton/minimise.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::VectorXd;

std::string_view form_name(AttentionForm form) {
  switch (form) {
    case AttentionForm::normalised: return "normalised";
    case AttentionForm::rescaled: return "rescaled";
    case AttentionForm::cross_entropy: return "cross-entropy";
  }
  return "unknown";
}

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

constexpr double kStartTolerance = 1e-2;  // of the start's own |g(0)|, as for vector regressions
constexpr double kInColumnSpace = 1e-10;  // relative residual of A2 v = 1
constexpr double kDescentSpread = 0.1;    // of the logits: nearly uniform attention
constexpr double kRandomSpread = 1;       // attention that tells keys apart, and is not saturated
constexpr double kRowSumSlack = 1e-3;     // |<b_j, 1> - 1| above which the form is degenerate, or B no attention

std::string shape_of(const RowMajorMatrix& matrix) {
  return std::to_string(matrix.rows()) + " x " + std::to_string(matrix.cols());
}

void check_sequence(const AttentionSequence& sequence, const AttentionSequence& first, AttentionForm form, int rank) {
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw InvalidArgument(message);
  };
  const bool with_values = sequence.values.has_value();
  const Index rows = sequence.partition.rows_local(rank), n2 = sequence.keys.rows();
  require(sequence.partition.rows_global() > 0 && n2 > 0, "a sequence without queries or keys");
  require(sequence.queries.rows() == rows, "queries have " + std::to_string(sequence.queries.rows()) +
                                               " local rows, the partition says " + std::to_string(rows));
  require(sequence.target.rows() == rows, "the target has " + std::to_string(sequence.target.rows()) +
                                              " local rows, the queries have " + std::to_string(rows));
  require(with_values == first.values.has_value(), "some sequences have values, others not");
  require(sequence.queries.cols() == first.queries.cols() && sequence.keys.cols() == first.keys.cols(),
          "sequences with queries and keys of different width share no X");
  require(sequence.queries.cols() > 0 && sequence.keys.cols() > 0, "queries and keys need at least one column");
  if (with_values) {
    require(form == AttentionForm::normalised, "values go with the form normalised only");
    require(!sequence.weights, "values and weights exclude each other");
    require(sequence.values->rows() == n2, "values are " + shape_of(*sequence.values) +
                                               ", expected one row for each of " + std::to_string(n2) + " keys");
    require(sequence.values->cols() > 0 && sequence.target.cols() > 0, "values and target need at least one column");
    require(sequence.values->cols() == first.values->cols() && sequence.target.cols() == first.target.cols(),
            "sequences with values and targets of different width share no Y");
    require(sequence.values->allFinite(), "values have numbers that are not finite");
  } else {
    require(sequence.target.cols() == n2, "the target has " + std::to_string(sequence.target.cols()) +
                                              " columns, expected one for each of " + std::to_string(n2) + " keys");
  }
  if (sequence.weights) {
    require(sequence.weights->rows() == rows && sequence.weights->cols() == n2,
            "weights are " + shape_of(*sequence.weights) + " on this rank, expected " + shape_of(sequence.target));
    require(sequence.weights->allFinite(), "weights have numbers that are not finite");
  }
  require(sequence.queries.allFinite() && sequence.keys.allFinite() && sequence.target.allFinite(),
          "queries, keys or target have numbers that are not finite");
}

/// What the targets' rows sum to, over all sequences.
struct TargetRows {
  double largest_miss = 0;  ///< max_j |<b_j, 1> - 1|
  double negative = 0;      ///< numbers < 0
  double zero_rows = 0;     ///< rows without a positive number
};

TargetRows describe(const Communicator& communicator, const std::vector<AttentionSequence>& sequences) {
  TargetRows found;
  for (const auto& sequence : sequences)
    for (Index j = 0; j < sequence.target.rows(); ++j) {
      const auto b = sequence.target.row(j).array();
      found.largest_miss = std::max(found.largest_miss, std::abs(b.sum() - 1));
      found.negative += static_cast<double>((b < 0).count());
      found.zero_rows += (b > 0).any() ? 0 : 1;
    }
  found.largest_miss = communicator.max(found.largest_miss);
  found.negative = communicator.sum(found.negative);
  found.zero_rows = communicator.sum(found.zero_rows);
  return found;
}

/// Whether A2 v = 1 for one v and the keys of all sequences.
bool ones_in_columns_of_keys(const std::vector<AttentionSequence>& sequences) {
  Index rows = 0;
  for (const auto& sequence : sequences) rows += sequence.keys.rows();
  Eigen::MatrixXd keys(rows, sequences[0].keys.cols());
  rows = 0;
  for (const auto& sequence : sequences) {
    keys.middleRows(rows, sequence.keys.rows()) = sequence.keys;
    rows += sequence.keys.rows();
  }
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
        passes_(communicator, sequences, shape, options.form) {
    result_.model = options.model;
    if (options.model == AttentionModel::automatic) choose_model();
    warn();
  }

  AttentionResult run() {
    const auto values = options_.method == AttentionMethod::joint ? AttentionObjective::Values::joint
                                                                  : AttentionObjective::Values::eliminated;
    AttentionObjective objective(passes_, parameters_, values, result_.model);
    NewtonOptions newton = options_.newton;
    Point point;
    if (newton.gradient_reference == 0 && !parameters_.is_low_rank()) {
      point = objective.evaluate(objective.unknowns(zero().reshaped<Eigen::RowMajor>(), zero_Y()));
      newton.gradient_reference = point.gradient.norm();
    }
    solve_from(objective, point, starting_point(), newton);
    newton.gradient_reference = result_.summary.gradient_reference;
    for (int k = 1; k <= options_.random_starts; ++k) solve_from(objective, point, random_start(k), newton);
    return std::move(result_);
  }

 private:
  RowMajorMatrix zero() const { return RowMajorMatrix::Zero(shape_.d1, shape_.d2); }
  RowMajorMatrix zero_Y() const { return RowMajorMatrix::Zero(shape_.d3, shape_.dv); }
  void choose_model();
  void warn();
  /// Moves the point. Keeps the result if it is the first or the lowest so far.
  void solve_from(AttentionObjective& objective, Point& point, const AttentionUnknowns& start,
                  const NewtonOptions& newton);
  AttentionUnknowns starting_point();
  AttentionUnknowns cross_entropy_start();
  AttentionUnknowns descent_start();
  AttentionUnknowns random_start(int number);
  RowMajorMatrix with_spread(const RowMajorMatrix& X, double spread);
  AttentionUnknowns with_best_Y(const RowMajorMatrix& X);

  const Communicator& communicator_;
  const std::vector<AttentionSequence>& sequences_;
  AttentionShape shape_;
  const AttentionOptions& options_;
  AttentionParameters parameters_;
  AttentionPasses passes_;
  TargetRows target_;
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
  target_ = describe(communicator_, sequences_);
  bool weighted = false;
  for (const auto& sequence : sequences_) weighted = weighted || sequence.weights.has_value();
  if (shape_.dv > 0) return;  // any B will do
  const std::string miss = text_of(target_.largest_miss);
  if (options_.form == AttentionForm::rescaled && !weighted)
    result_.warnings.push_back(
        "form rescaled without weights: L tends to its infimum 0 where all logits tend to -infinity; it has a minimum "
        "elsewhere only if the data allow it, add weights");
  if (options_.form == AttentionForm::rescaled && target_.largest_miss > kRowSumSlack)
    result_.warnings.push_back("a row of B sums to 1 up to " + miss +
                               " only: exp(Z) = diag(exp(Z) 1) B has no solution");
  if (options_.form != AttentionForm::rescaled && (target_.largest_miss > kRowSumSlack || target_.negative > 0))
    result_.warnings.push_back("rows of B are no distributions: sums are off 1 by up to " + miss + ", " +
                               text_of(target_.negative) + " numbers are negative; F cannot reproduce them");
  if (options_.form != AttentionForm::rescaled && !weighted && ones_in_columns_of_keys(sequences_))
    result_.warnings.push_back(
        "the keys have the ones vector in their column space: X is determined up to y v^T with A2 v = 1 only");
}

AttentionUnknowns AttentionSolve::starting_point() {
  result_.start = options_.start;
  const bool distributions = options_.form == AttentionForm::normalised && shape_.dv == 0 && target_.zero_rows == 0;
  if (options_.start == AttentionStart::automatic)
    result_.start = distributions ? AttentionStart::cross_entropy : AttentionStart::zero;
  switch (result_.start) {
    case AttentionStart::given: return {options_.x0.X, options_.x0.Y.size() > 0 ? options_.x0.Y : zero_Y()};
    case AttentionStart::cross_entropy:
      if (!distributions)
        throw InvalidArgument(
            "the start cross-entropy needs the form normalised, no values, and a "
            "positive number in every row of B",
            Error::Scope::all_ranks);
      return cross_entropy_start();
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
    const VectorXd sums = sequence.target.rowwise().sum();
    sequence.target = sums.cwiseInverse().asDiagonal() * sequence.target;
  }
  AttentionPasses passes(communicator_, sequences, shape_, AttentionForm::cross_entropy);
  const AttentionParameters full(shape_.d1, shape_.d2, 0);
  AttentionObjective objective(passes, full, AttentionObjective::Values::joint, AttentionModel::kronecker);
  NewtonOptions newton = options_.newton;
  newton.relative_tolerance = kStartTolerance;
  newton.gradient_reference = 0;
  newton.on_iteration = options_.on_start_iteration;
  Point point = objective.evaluate(VectorXd::Zero(full.size()));
  const auto summary = newton_cg(objective, point, newton);
  result_.start_iterations = summary.iterations;
  return objective.state_of(point).at;
}

void AttentionSolve::solve_from(AttentionObjective& objective, Point& point, const AttentionUnknowns& start,
                                const NewtonOptions& newton) {
  const VectorXd x0 = objective.unknowns(parameters_.nearest(communicator_, start.X), start.Y);
  if (point.x.size() == 0 || point.x != x0) point = objective.evaluate(x0);
  const auto summary = newton_cg(objective, point, newton);
  result_.values.push_back(summary.value);
  if (result_.values.size() > 1 && !(summary.value < result_.summary.value)) return;
  result_.best_start = static_cast<int>(result_.values.size()) - 1;
  result_.summary = summary;
  result_.unknowns = objective.state_of(point).at;
  if (parameters_.is_low_rank()) {
    const VectorXd u = point.x.head(parameters_.size());
    result_.P = parameters_.P(u);
    result_.Q = parameters_.Q(u);
  }
  const auto& evaluation = objective.state_of(point).evaluation;
  result_.error = evaluation.misfit == 0 ? 0 : std::sqrt(evaluation.misfit / evaluation.target);
}

/// X scaled so that the root mean square of the logits is `spread`; X itself where all are 0.
RowMajorMatrix AttentionSolve::with_spread(const RowMajorMatrix& X, double spread) {
  const double squares = passes_.sum({{1, 1}}, [&](const QueryBlock& block, MatrixSums& part) {
    part[0](0, 0) += block.logits(X).squaredNorm();
  })[0](0, 0);
  const double size = std::sqrt(squares / passes_.logits_global());
  return size > 0 && std::isfinite(size) ? RowMajorMatrix(spread / size * X) : X;
}

AttentionUnknowns AttentionSolve::with_best_Y(const RowMajorMatrix& X) {
  const AttentionParameters full(shape_.d1, shape_.d2, 0);
  AttentionObjective objective(passes_, full, AttentionObjective::Values::eliminated, AttentionModel::kronecker);
  return objective.state_of(objective.evaluate(full.nearest(communicator_, X))).at;
}

/// Along the descent from X = 0 with Y = argmin_Y there: at X = 0 itself P and Q have no gradient, and neither has X
/// where Y = 0.
AttentionUnknowns AttentionSolve::descent_start() {
  const AttentionUnknowns origin = with_best_Y(zero());
  return with_best_Y(with_spread(-passes_.evaluate(origin).gradient.X, kDescentSpread));
}

AttentionUnknowns AttentionSolve::random_start(int number) {
  RowMajorMatrix X = zero();
  RandomStream(options_.seed, Purpose::random_starts).normals(number, span_of(X));
  return with_best_Y(with_spread(parameters_.X(parameters_.nearest(communicator_, X)), kRandomSpread));
}

}  // namespace

AttentionShape check_sequences(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                               AttentionForm form) {
  communicator.agree([&] {
    if (sequences.empty()) throw InvalidArgument("there is no sequence");
    for (std::size_t k = 0; k < sequences.size(); ++k) try {
        check_sequence(sequences[k], sequences[0], form, communicator.rank());
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
                                       const std::vector<AttentionSequence>& sequences, AttentionForm form,
                                       const AttentionUnknowns& at, bool with_hessian) {
  const AttentionShape shape = check_sequences(communicator, sequences, form);
  if (at.X.rows() != shape.d1 || at.X.cols() != shape.d2 || at.Y.rows() != shape.d3 || at.Y.cols() != shape.dv)
    throw InvalidArgument("X is " + shape_of(at.X) + " and Y " + shape_of(at.Y) + ", expected " +
                              std::to_string(shape.d1) + " x " + std::to_string(shape.d2) + " and " +
                              std::to_string(shape.d3) + " x " + std::to_string(shape.dv),
                          Error::Scope::all_ranks);
  AttentionPasses passes(communicator, sequences, shape, form);
  const AttentionParameters full(shape.d1, shape.d2, 0);
  AttentionObjective objective(passes, full, AttentionObjective::Values::joint, AttentionModel::kronecker);
  const Point point = objective.evaluate(objective.unknowns(full.nearest(communicator, at.X), at.Y));
  AttentionEvaluation result{point.value, objective.state_of(point).evaluation.gradient, {}};
  if (with_hessian) result.hessian = objective.hessian(point).exact;
  return result;
}

AttentionResult solve_attention(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                const AttentionOptions& options) {
  const AttentionShape shape = check_sequences(communicator, sequences, options.form);
  const auto require = [](bool condition, const std::string& message) {
    if (!condition) throw InvalidArgument(message, Error::Scope::all_ranks);
  };
  require(options.rank >= 0 && options.rank <= std::min(shape.d1, shape.d2),
          "the rank is " + std::to_string(options.rank) +
              ", expected 0 to min(d1, d2) = " + std::to_string(std::min(shape.d1, shape.d2)));
  require(options.random_starts >= 0, "random_starts must be >= 0");
  require(options.dense_limit >= 1, "dense_limit must be at least 1");
  if (options.start == AttentionStart::given) {
    require(options.x0.X.allFinite() && options.x0.Y.allFinite(), "x0 must be finite");
    require(options.x0.X.rows() == shape.d1 && options.x0.X.cols() == shape.d2,
            "x0 is " + shape_of(options.x0.X) + ", expected " + std::to_string(shape.d1) + " x " +
                std::to_string(shape.d2));
    require(options.x0.Y.size() == 0 || (options.x0.Y.rows() == shape.d3 && options.x0.Y.cols() == shape.dv),
            "Y of x0 is " + shape_of(options.x0.Y) + ", expected " + std::to_string(shape.d3) + " x " +
                std::to_string(shape.dv));
  }
  return AttentionSolve(communicator, sequences, shape, options).run();
}

}  // namespace attnreg
