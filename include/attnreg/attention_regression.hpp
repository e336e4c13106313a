#pragma once

#include <Eigen/Core>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/solver.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/row_partition.hpp"

namespace attnreg {

/// What the logits Z = A1 X A2^T of a sequence are compared with, row by row.
enum class AttentionForm {
  normalised,     ///< 1/2 |F - B|^2, F = rowwise softmax(Z)
  rescaled,       ///< 1/2 |exp(Z) - diag(exp(Z) 1) B|^2
  cross_entropy,  ///< sum_j s_j log <exp(z_j), 1> - <b_j, z_j>, s_j = <b_j, 1>: convex; the start of `normalised`
};
std::string_view form_name(AttentionForm form);  ///< "cross-entropy"

/// One sequence: queries A1 (n1 x d1), keys A2 (n2 x d2), target B (n1 x n2), and a regulariser 1/2 |W o Z|^2; or with
/// values A3 (n2 x d3), target B (n1 x dv) and L = |F A3 Y - B|^2. Rows of A1, B and W are spread over the ranks, A2
/// and A3 replicated. All in double.
struct AttentionSequence {
  RowPartition partition;                 ///< of the n1 rows
  RowMajorMatrix queries;                 ///< A1, this rank's rows
  RowMajorMatrix keys;                    ///< A2, replicated
  std::optional<RowMajorMatrix> values;   ///< A3, replicated
  RowMajorMatrix target;                  ///< B, this rank's rows
  std::optional<RowMajorMatrix> weights;  ///< W, this rank's rows; without: 0. Not with values.
};

/// X (d1 x d2) and, with values, Y (d3 x dv; else 0 x 0). vec is row-major everywhere.
struct AttentionUnknowns {
  RowMajorMatrix X, Y;
};

/// How Y is found beside X. Without values there is no difference.
enum class AttentionMethod {
  joint,   ///< Newton-CG on [vec X; vec Y]
  varpro,  ///< variable projection: Newton-CG on X with Y = argmin_Y L(X, Y), the exact reduced Hessian
};
std::string_view method_name(AttentionMethod method);  ///< "varpro"

/// What preconditions the conjugate gradients.
enum class AttentionModel {
  automatic,  ///< dense up to `AttentionOptions::dense_limit` unknowns of [X; Y]
  dense,      ///< the positive curvature itself, D x D, D = d1 d2 + d3 dv; factored by rank 0
  kronecker,  ///< one Kronecker product K1 (x) K2 for each of X (or P, Q) and Y: O(d1^2 + d2^2)
};
std::string_view model_name(AttentionModel model);  ///< "kronecker"

enum class AttentionStart { automatic, zero, cross_entropy, given };

struct AttentionOptions {
  AttentionForm form = AttentionForm::normalised;
  AttentionMethod method = AttentionMethod::varpro;
  AttentionModel model = AttentionModel::automatic;
  Index dense_limit = 4096;                          ///< 3 D^2 doubles on rank 0, one on the others
  Index rank = 0;                                    ///< r > 0: X = P Q^T with P d1 x r, Q d2 x r; 0: X is free
  AttentionStart start = AttentionStart::automatic;  ///< automatic: cross-entropy where form and data allow it
  AttentionUnknowns x0;                              ///< of Start::given; replicated; Y may be empty for varpro
  int random_starts = 0;  ///< >= 0: so many solves from random X as well; the lowest L is kept
  std::uint64_t seed = 1;
  NewtonOptions newton;  ///< gradient_reference 0: |g| at X = 0, Y = 0; at the start with a rank
  std::function<void(const IterationRecord&)> on_start_iteration;
};

struct AttentionResult {
  AttentionUnknowns unknowns;
  RowMajorMatrix P, Q;  ///< X = P Q^T; empty without a rank
  NewtonSummary summary;
  AttentionModel model = AttentionModel::dense;
  AttentionStart start = AttentionStart::zero;
  int start_iterations = 0;
  std::vector<double> values;  ///< L at the end of each solve: from `start`, then from the random ones
  int best_start = 0;          ///< which of them is the result; 0: from `start`
  double error = 0;  ///< |F - B| / |B| (Frobenius), |F A3 Y - B| / |B| with values, 0 / 0 = 0; all sequences together
  std::vector<std::string> notes, warnings;
};

/// Local. Of the sequences all have the same d1, d2, d3 and dv: d1, d2, d3, dv; d3 = dv = 0 without values.
struct AttentionShape {
  Index d1 = 0, d2 = 0, d3 = 0, dv = 0;

  Index unknowns() const { return d1 * d2 + d3 * dv; }
};

/// Collective, one all-reduce. Checks that the sequences have one shape and are finite. `InvalidArgument`
/// on all ranks: no sequence, shapes that do not match, values with weights or another form than normalised, numbers
/// that are not finite.
AttentionShape check_sequences(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                               AttentionForm form);

/// Collective. Value, gradient and, if asked for, Hessian at (X, Y).
struct AttentionEvaluation {
  double value = 0;
  AttentionUnknowns gradient;
  Eigen::MatrixXd hessian;  ///< of [vec X; vec Y], replicated; empty unless asked for: D products
};
AttentionEvaluation evaluate_attention(const Communicator& communicator,
                                       const std::vector<AttentionSequence>& sequences, AttentionForm form,
                                       const AttentionUnknowns& at, bool with_hessian);

/// Collective. Minimises the sum of L over the sequences, which share X and Y. A pass costs 4 n1 n2 (d2 + ...) flops
/// and n1 n2 exponentials, spread over ranks and threads, and one all-reduce of d1 d2 + d3 dv numbers; Z and F exist by
/// blocks of rows only, made again in every pass. `NewtonSummary::reads_of_a` counts passes. Errors as for
/// `check_sequences`; also for x0 of a wrong shape, a rank above min(d1, d2) and options out of range.
AttentionResult solve_attention(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                const AttentionOptions& options);

}  // namespace attnreg
