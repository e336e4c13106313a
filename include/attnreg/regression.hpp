#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/certificate.hpp"
#include "attnreg/linear_solver.hpp"
#include "attnreg/newton.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/sketched_newton.hpp"

namespace attnreg {

enum class Method {
  automatic,        ///< `newton` or `newton_cg` by the cost model of docs/algorithms.md
  newton,           ///< exact Hessian
  newton_cg,        ///< Hessian products, preconditioned by sampled rows
  sketched_newton,  ///< the papers' iteration: full steps with a sampled Hessian
};

enum class Start {
  automatic,      ///< zero or cross_entropy, by a test at x = 0 (docs/algorithms.md)
  zero,           ///< x0 = 0
  cross_entropy,  ///< a rough minimiser of the cross-entropy, from 0: w = 1e-4, stopped at 1e-2 of its own |g(0)|
  given,          ///< `RegressionOptions::x0`
  random,         ///< only in results: one of `RegressionOptions::random_starts`, or where x = 0 is stationary anyway
};

std::string_view method_name(Method method);  ///< "newton-cg"
std::string_view start_name(Start start);     ///< "cross-entropy"

/// The rows that a preconditioner is made of; see docs/algorithms.md.
struct SamplingOptions {
  double oversampling = 0;       ///< c: about c d rows are kept; larger: fewer products, dearer models; 0: automatic
  Eigen::Index sketch_rows = 0;  ///< of the sketch behind the leverage scores; 0: 6 d
  int nonzeros = 4;              ///< per column of the sketch
  int jl_columns = 16;           ///< of the random projection of the scores; 0: exact row norms
  std::uint64_t seed = 1;
};

/// Local. c where it is not given: 30 for d <= 256, else of 30, 20, 15 and 10 the one with the least work.
/// A sample of c d rows has condition ((sqrt(c) + 1) / (sqrt(c) - 1))^2 (Marchenko and Pastur 1967), of which the
/// products take the root; its Gram matrix c d^3 flops.
double automatic_oversampling(std::int64_t rows, Eigen::Index columns);

struct RegressionOptions {
  std::string loss = "softmax";  ///< a name of `loss_names`
  Method method = Method::automatic;
  Start start = Start::automatic;
  Eigen::VectorXd x0;     ///< size d; only for `Start::given`
  int random_starts = 0;  ///< solve from so many random points as well, and return the lowest minimum
  SamplingOptions sampling;
  LinearSolverOptions linear_solver{};    ///< of newton and newton_cg; sketched_newton knows rank0 only
  SketchedNewtonOptions sketched_newton;  ///< only for that method
  CertificateLevel certificate = CertificateLevel::gradient;
  /// > 0: go on until |x - x*| <= epsilon is certified; implies the full certificate. For `sketched_newton` see there.
  double epsilon = 0;
  /// `gradient_reference` is set by the solver: |g(0)|, whatever the start; of losses other than softmax and
  /// cross-entropy the larger one of |g(0)| and |g(x0)|.
  NewtonOptions newton;
  std::function<void(const IterationRecord&)> on_start_iteration;  ///< the records of the cross-entropy start
};

/// How well the fitted f, softmax(A x) or what else `predict` gives, reproduces b. The total variation, the divergence
/// and the supports are for f and b that are parts of 1.
struct FitQuality {
  double relative_residual = 0;  ///< |f - b| / |b|; NaN for b = 0
  double total_variation = 0;    ///< 1/2 sum |f - b|
  double kullback_leibler = 0;   ///< sum b ln(b / f), nats; NaN when some b < 0
  double r_squared = 0;          ///< 1 - sum (f - b)^2 / sum (b - mean b)^2; NaN for constant b
  double support_fitted = 0;     ///< 1 / sum f^2, effective number of rows
  double support_target = 0;     ///< (sum b)^2 / sum b^2
};

/// A minimum that several starts may have led to.
struct Minimum {
  double value = 0;
  int starts = 0;                 ///< how many ended there, to 1e-6 of L(0)
  std::vector<std::string> from;  ///< their names: "zero", "cross-entropy", "random 3"
};

struct RegressionResult {
  Eigen::VectorXd x;                         ///< d, replicated
  Eigen::VectorXd fitted;                    ///< f, this rank's rows
  NewtonSummary summary;                     ///< of the solve, the start's reads, collectives and seconds included
  Method method = Method::newton;            ///< the one that was used
  Start start = Start::zero;                 ///< likewise
  int start_iterations = 0;                  ///< of the cross-entropy start
  std::vector<SketchedStep> sketched_steps;  ///< of `Method::sketched_newton`
  Certificate certificate;
  std::vector<Minimum> minima;  ///< with `random_starts`: the distinct ones, lowest first
  FitQuality fit;
  std::vector<std::string> notes;     ///< what was decided and why; plain sentences, replicated
  std::vector<std::string> warnings;  ///< likewise
};

/// Collective. Finds x with softmax(A x) ~ b, or what else the loss compares with b: a (local) minimiser of phi(A x) +
/// 1/2 |diag(w) A x|^2.
///
/// b, w: this rank's rows, finite. x is replicated. Memory beyond A: 10 rows_local doubles, and what
/// `linear_solver_bytes` says. `OutOfMemory` on all ranks where ScaLAPACK's matrices find no room. Throws
/// `InvalidArgument` on all ranks for wrong sizes, values that are not finite, an unknown loss, or cross-entropy with
/// sum b <= 0. Source: Deng, Li, Song 2023, arXiv 2304.10411, with the corrections of docs/algorithms.md.
RegressionResult solve_regression(const RowMatrix& A, const Eigen::VectorXd& b, const Eigen::VectorXd& w,
                                  const RegressionOptions& options);

/// Collective. The regressions with w = weights[0], weights[1], ... for all rows, each started where the one before
/// ended; the options' start is for the first. Leverage scores are kept from one to the next while they serve. Each
/// result counts its own reads. Errors as for `solve_regression`; no weights: `InvalidArgument`.
std::vector<RegressionResult> solve_path(const RowMatrix& A, const Eigen::VectorXd& b,
                                         const std::vector<double>& weights, const RegressionOptions& options);

/// Collective. k independent regressions with the same A and w, one for each column of B, solved together: where
/// several wait for a pass over A, or for a sum over the ranks, one read and one message serve them all, a Hessian
/// product being a matrix product then; the sketch behind the first leverage scores is shared. The results are those of
/// `solve_regression`, up to rounding and the rows that are sampled. Their reads are shares of reads: they add up to
/// what was read. B: this rank's rows x k, k >= 1. on_iteration: gets the target, from 0, in place of
/// `NewtonOptions::on_iteration`; the records of several come in turn. Memory beyond A: k times that of a regression,
/// and 16 MB of address space each. Errors as for `solve_regression`.
std::vector<RegressionResult> solve_targets(
    const RowMatrix& A, const Eigen::MatrixXd& B, const Eigen::VectorXd& w, const RegressionOptions& options,
    const std::function<void(int target, const IterationRecord& record)>& on_iteration = {});

/// Collective, one read of A and up to three small all-reduces. What the loss compares with b, this rank's rows:
/// softmax(A x), exp(A x), exp(A x) / <exp(A x), 1>, ... An unknown loss: `InvalidArgument` on all ranks.
Eigen::VectorXd predict(const RowMatrix& A, const Eigen::VectorXd& x, std::string_view loss = "softmax");

}  // namespace attnreg
