#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/certificate.hpp"
#include "attnreg/communicator.hpp"
#include "attnreg/regression.hpp"
#include "attnreg/row_partition.hpp"

namespace attnreg {

/// Which keys each query sees. The others have no part in its softmax: their attention is exactly 0, and neither their
/// logits, targets and weights nor their values count. Every query must see a key.
struct AttentionMask {
  using Rows = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  /// This rank's queries x all keys; 0: the query does not see the key. Without, the mask is causal: of n1 queries and
  /// n2 >= n1 keys, query i sees the keys j <= i + n2 - n1, so that the last query sees all.
  std::optional<Rows> rows;
};

/// One sequence: queries A1 (n1 x d1), keys A2 (n2 x d2), target B (n1 x n2), and L = sum_j phi(z_j) + 1/2 |W o Z|^2
/// with the rows z_j of the logits Z = A1 X A2^T and a loss phi of docs/losses.md that compares them with the rows of
/// B; or with values A3 (n2 x d3), target B (n1 x dv) and L = |F A3 Y - B|^2, F = softmax(Z) row by row. Rows of A1, B
/// and W are spread over the ranks, A2 and A3 replicated. All in double.
struct AttentionSequence {
  RowPartition partition;                 ///< of the n1 rows
  RowMajorMatrix queries;                 ///< A1, this rank's rows
  RowMajorMatrix keys;                    ///< A2, replicated
  std::optional<RowMajorMatrix> values;   ///< A3, replicated
  RowMajorMatrix target;                  ///< B, this rank's rows
  std::optional<RowMajorMatrix> weights;  ///< W, this rank's rows; without: 0. Not with values.
  /// Which keys a query sees; without: all. What B and W have at the other keys does not count.
  std::optional<AttentionMask> mask = std::nullopt;
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

struct AttentionOptions {
  std::string loss = "softmax";  ///< one of `loss_names`; with values softmax
  AttentionMethod method = AttentionMethod::varpro;
  AttentionModel model = AttentionModel::automatic;
  Index dense_limit = 4096;  ///< 3 D^2 doubles on rank 0, one on the others
  Index rank = 0;            ///< r > 0: X = P Q^T with P d1 x r, Q d2 x r; 0: X is free
  /// automatic: of softmax cross_entropy where the data allow it, random where X = 0 is stationary, else zero
  Start start = Start::automatic;
  AttentionUnknowns x0;   ///< of Start::given; replicated; Y may be empty for varpro
  int random_starts = 0;  ///< >= 0: so many solves from random X as well; the lowest L of those that converge is kept
  std::uint64_t seed = 1;
  /// gradient_reference 0: |g| at X = 0, Y = 0, of losses that are not centred the larger one of it and |g| at the
  /// start; at the start with a rank
  NewtonOptions newton;
  std::function<void(const IterationRecord&)> on_start_iteration;
  CertificateLevel certificate = CertificateLevel::gradient;
};

/// What can be said about the unknowns after a solve: docs/attention.md, "Certificate". Replicated.
struct AttentionCertificate {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  CertificateLevel level = CertificateLevel::none;
  double gradient_norm = kNone;
  double relative_gradient = kNone;  ///< gradient_norm / gradient_reference of the solve

  // From here on: full only, else NaN and empty.
  double passes = 0;                   ///< that the certificate cost
  int products = 0;                    ///< with the Hessian
  double gradient_floor = kNone;       ///< the estimated rounding error of the gradient
  std::int64_t unknowns = 0;           ///< D, of the iteration
  std::int64_t free_directions = 0;    ///< of them L does not depend on so many directions; they are left out
  double smallest_eigenvalue = kNone;  ///< of H on the others: an eigenvector's Rayleigh quotient
  double residual = kNone;             ///< an eigenvalue is that near
  bool is_complete = false;            ///< no eigenvalue can have been missed; else a matter of the seeded random start
  double largest_eigenvalue = kNone;   ///< in absolute value, from below
  double eigenvalue_rounding = kNone;  ///< estimated error of the smallest one
  StationaryKind kind = StationaryKind::unknown;
  std::vector<std::string> null_directions;  ///< "64: the factors, X = P Q^T = (P S)(Q S^-T)^T"
  std::string reason;                        ///< why the kind is unknown
};

struct AttentionResult : SolveResult {
  AttentionUnknowns unknowns;
  RowMajorMatrix P, Q;  ///< X = P Q^T; empty without a rank
  AttentionModel model = AttentionModel::dense;
  /// |F - B| / |B| (Frobenius) for what the loss fits, |F A3 Y - B| / |B| with values, 0 / 0 = 0; all sequences
  /// together
  double error = 0;
  std::string fitted;  ///< F: "softmax(A1 X A2^T)"
  AttentionCertificate certificate;
};

/// Local. Of the sequences all have the same d1, d2, d3 and dv: d1, d2, d3, dv; d3 = dv = 0 without values.
struct AttentionShape {
  Index d1 = 0, d2 = 0, d3 = 0, dv = 0;

  Index unknowns() const { return d1 * d2 + d3 * dv; }
};

/// Collective, one all-reduce. Checks that the sequences have one shape and are finite. `InvalidArgument`
/// on all ranks: no sequence, shapes that do not match, values with weights or another loss than softmax, a query that
/// sees no key, numbers that are not finite.
AttentionShape check_sequences(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                               std::string_view loss);

/// Collective, one all-reduce of the numbers of keys. Whether B looks as if a mask were missing: what is exactly 0 in
/// the pattern of a causal mask, or in whole columns, of sequences that have no mask. A sentence that says which and
/// what to do; empty: no. The first warning of `solve_attention`.
std::string missing_mask(const Communicator& communicator, const std::vector<AttentionSequence>& sequences);

/// Collective. Value, gradient and, if asked for, Hessian at (X, Y).
struct AttentionEvaluation {
  double value = 0;
  AttentionUnknowns gradient;
  Eigen::MatrixXd hessian;  ///< of [vec X; vec Y], replicated; empty unless asked for: D products
};
AttentionEvaluation evaluate_attention(const Communicator& communicator,
                                       const std::vector<AttentionSequence>& sequences, std::string_view loss,
                                       const AttentionUnknowns& at, bool with_hessian);

/// Collective. Minimises the sum of L over the sequences, which share X and Y. A pass costs 4 n1 n2 (d2 + ...) flops
/// and n1 n2 exponentials, spread over ranks and threads, and one all-reduce of d1 d2 + d3 dv numbers; Z and F exist by
/// blocks of rows only, made again in every pass. `NewtonSummary::reads_of_a` counts passes. Errors as for
/// `check_sequences`; also for an unknown loss, x0 of a wrong shape, a rank above min(d1, d2) and options out of range.
AttentionResult solve_attention(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                const AttentionOptions& options);

}  // namespace attnreg
