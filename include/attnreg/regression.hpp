#pragma once

#include <Eigen/Core>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/certificate.hpp"
#include "attnreg/leverage.hpp"
#include "attnreg/linear_solver.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/solver.hpp"

namespace attnreg {

enum class Method {
  automatic,        ///< `surrogate`, `newton` or `newton_cg` by the cost model of docs/algorithms.md
  newton,           ///< exact Hessian
  newton_cg,        ///< Hessian products, preconditioned by sampled rows
  sketched_newton,  ///< the papers' iteration: full steps with a sampled Hessian
  surrogate,        ///< of softmax and cross-entropy, tall A: minimisers on sampled rows, corrected by exact gradients
};

enum class Start {
  automatic,      ///< the lowest end on a sample, or by a test at x = 0 (docs/algorithms.md; docs/attention.md)
  zero,           ///< x0 = 0
  cross_entropy,  ///< a rough minimiser of the cross-entropy, from 0: w = 1e-4, stopped at 1e-2 of its own |g(0)|
  given,          ///< `x0` of the options
  random,         ///< only in results: one of the `random_starts`, or where x = 0 is stationary anyway
};

std::string_view method_name(Method method);  ///< "newton-cg"
std::string_view start_name(Start start);     ///< "cross-entropy"

/// Local. The names of the losses: "softmax", "cross-entropy", "exp", ...; docs/losses.md.
const std::vector<std::string_view>& loss_names();

/// What L(x) = phi(A x + o) + 1/2 |diag(w) A x|^2 + 1/2 ridge |x|^2 is made of besides A, b and w.
struct RegressionModel {
  RegressionModel() = default;
  /// The loss of this name alone.
  template <std::convertible_to<std::string_view> Name>
  RegressionModel(const Name& name) : loss(std::string_view(name)) {}

  std::string loss = "softmax";  ///< one of `loss_names`
  double ridge = 0;              ///< >= 0: 1/2 ridge |x|^2 is added to L,
  bool ridge_scaled = false;  ///< or 1/2 ridge sum_j s_j^2 x_j^2, s_j the norm of column j, about its mean for softmax
  /// o, this rank's rows: numbers of size 1e300 at most. -infinity masks a row, of softmax and cross-entropy: it has no
  /// part in L, whatever its A, b and w; b of cross-entropy must be 0 there. None: 0, on all ranks.
  std::shared_ptr<const Eigen::VectorXd> offset{};
};

struct RegressionOptions : RegressionModel {
  Method method = Method::automatic;
  Start start = Start::automatic;
  Eigen::VectorXd x0;     ///< size d; only for `Start::given`
  int random_starts = 0;  ///< solve from so many random points as well, and return the lowest end
  SamplingOptions sampling;
  LinearSolverOptions linear_solver{};    ///< of newton and newton_cg; the others know rank0 only
  SketchedNewtonOptions sketched_newton;  ///< only for that method
  CertificateLevel certificate = CertificateLevel::gradient;
  /// > 0: go on until |x - x*| <= epsilon is certified; implies the full certificate. For `sketched_newton` see there.
  double epsilon = 0;
  /// 0 to 1: a detector of silent data corruption. In every evaluation of L and g each block of rows is made again by
  /// another rank with this probability, in another order of summation, and compared; rates from 0.001 to 0.05 are
  /// usual (docs/experiments.md). What a third rank does not settle is an `Error` with `ExitCode::internal` on all
  /// ranks. 0: off.
  double audit = 0;
  /// `gradient_reference` is set by the solver: |g(0)|_s, whatever the start; where that is rounding, and x = 0
  /// stationary, the largest |g|_s that is met.
  NewtonOptions newton;
  std::function<void(const IterationRecord&)> on_start_iteration;  ///< the records of the cross-entropy start
};

/// Where the solves from several starts ended.
struct Minimum {
  double value = 0;
  Termination termination = Termination::converged;  ///< a minimum only where the solves converged
  int starts = 0;                                    ///< how many ended there, to 1e-6 of L(0)
  std::vector<std::string> from;                     ///< their names: "zero", "cross-entropy", "random 3"
};

/// What came of a solve from one start or several, for regressions of every kind. All values are replicated.
struct SolveResult {
  NewtonSummary summary;           ///< of the solve that is returned; reads, collectives and seconds are those of all
  Start start = Start::zero;       ///< where it started
  int start_iterations = 0;        ///< of the cross-entropy start
  std::vector<Minimum> minima;     ///< with random starts: the distinct ends, lowest first
  std::vector<std::string> notes;  ///< what was decided and why; plain sentences
  std::vector<std::string> warnings;  ///< likewise
};

struct RegressionResult : SolveResult {
  Eigen::VectorXd x;                         ///< d, replicated
  Eigen::VectorXd gradient;                  ///< of L at x; d, replicated
  Eigen::VectorXd fitted;                    ///< f, this rank's rows
  Method method = Method::newton;            ///< the one that was used
  std::vector<SketchedStep> sketched_steps;  ///< of `Method::sketched_newton`
  double sample_reads = 0;  ///< of `Method::surrogate`: work on samples, in reads of A, not in the summary's
  Certificate certificate;
  FitQuality fit;
  AuditReport audit;
};

/// Collective. Finds x with softmax(A x) ~ b, or what else the loss compares with b: a (local) minimiser of phi(A x +
/// o)
/// + 1/2 |diag(w) A x|^2, with a ridge if there is one: `RegressionModel`.
///
/// b: this rank's rows; w likewise, or one number; finite. x is replicated. Memory beyond A: 8 rows_local doubles, b
/// among them, with offsets one more, theirs, with masked rows up to two more, and what `solve_memory` says.
/// `OutOfMemory` on all ranks where ScaLAPACK's matrices find no room. Throws `InvalidArgument` on all ranks for wrong
/// sizes, values that are not finite, an unknown loss, cross-entropy with sum b <= 0, masks that a loss does not know,
/// or no row without one. Source: Deng, Li, Song 2023, arXiv 2304.10411, with the corrections of docs/algorithms.md.
RegressionResult solve_regression(const RowMatrix& A, const Eigen::VectorXd& b, const RidgeWeights& w,
                                  const RegressionOptions& options);

/// Collective. The regressions with w = weights[0], weights[1], ... for all rows, each started where the one before
/// ended; the options' start is for the first, and their time limit is for all together: weights for which no time is
/// left have no result. Leverage scores are kept from one to the next while they serve. Each
/// result counts its own reads. Errors as for `solve_regression`; no weights: `InvalidArgument`.
std::vector<RegressionResult> solve_path(const RowMatrix& A, const Eigen::VectorXd& b,
                                         const std::vector<double>& weights, const RegressionOptions& options);

/// Collective. k independent regressions with the same A and w, one for each column of B, solved together: where
/// several wait for a pass over A, or for a sum over the ranks, one read and one message serve them all, a Hessian
/// product being a matrix product then; the sketch behind the first leverage scores is shared. `Method::automatic` is
/// `newton_cg` or `newton` where k > 1. The results are those of `solve_regression`, up to rounding and the rows that
/// are sampled. Their reads are shares of reads: they add up to what was read. B: this rank's rows x k, k >= 1.
/// on_iteration: gets the target, from 0, in place of `NewtonOptions::on_iteration`; the records of several come in
/// turn. The time limit is for all together: the targets for which no time is left end near x = 0;
/// those that a stop (`Termination::stopped`) leaves out have x = 0 and f = 0.
///
/// Many targets are solved in batches of 4 to 64, so that what a batch takes is about 256 MB a rank, or four times A,
/// unless four targets take more. Memory beyond A: that of a regression for each target of a batch, 16 MB of address
/// space for each of them, and the results, k (rows_local + d) doubles. Errors as for `solve_regression`.
std::vector<RegressionResult> solve_targets(
    const RowMatrix& A, const Eigen::MatrixXd& B, const RidgeWeights& w, const RegressionOptions& options,
    const std::function<void(int target, const IterationRecord& record)>& on_iteration = {});

/// L at a point. Replicated.
struct RegressionEvaluation {
  double value = 0;          ///< L; infinite where it overflows
  double log_value = 0;      ///< ln L, also there
  Eigen::VectorXd gradient;  ///< d
  Eigen::MatrixXd hessian;   ///< d x d, the exact one; empty unless asked for
};

/// Collective, one read of A; with the Hessian up to two more, n d^2 flops, one all-reduce of 16 d^2 bytes and one
/// broadcast of 8 d^2. Value and derivatives of L at x, d numbers, replicated. Errors as for `solve_regression`;
/// what overflows is infinite or NaN.
RegressionEvaluation evaluate_regression(const RowMatrix& A, const Eigen::VectorXd& b, const RidgeWeights& w,
                                         const Eigen::VectorXd& x, const RegressionModel& model = {},
                                         bool with_hessian = false);

/// Collective. What can be said about any x, wherever it comes from; its |g|_s is compared with that at x = 0. Two
/// reads of A, `full` up to 10 more. Errors as for `solve_regression`.
Certificate certify_regression(const RowMatrix& A, const Eigen::VectorXd& b, const RidgeWeights& w,
                               const Eigen::VectorXd& x, const RegressionModel& model = {},
                               CertificateLevel level = CertificateLevel::full);

/// Collective, one read of A and up to three small all-reduces. What the loss compares with b, this rank's rows:
/// softmax(A x + o), exp(A x + o), exp(A x + o) / <exp(A x + o), 1>, ...; 0 of masked rows. An unknown loss, or offsets
/// as above: `InvalidArgument`; a value that is not finite: `NotFinite` with its row; on all ranks.
Eigen::VectorXd predict(const RowMatrix& A, const Eigen::VectorXd& x, const RegressionModel& model = {});

}  // namespace attnreg
