#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
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

/// B of one head and one sequence, this rank's rows, as it is held: in double, or in float, which has all of what was
/// stored in float or half precision.
using AttentionMatrix = std::variant<RowMajorMatrix, RowMajorMatrixFloat>;

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
/// sees no key, numbers that are not finite. Without `with_targets` the targets, which are elsewhere, may be 0 x 0.
AttentionShape check_sequences(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                               std::string_view loss, bool with_targets = true);

/// Collective, one all-reduce of the numbers of keys. Whether B looks as if a mask were missing: what is exactly 0 in
/// the pattern of a causal mask, or in whole columns, of sequences that have no mask. A sentence that says which and
/// what to do; empty: no. The first warning of `solve_attention`. targets: of a head, in place of those of the
/// sequences.
std::string missing_mask(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const std::vector<AttentionMatrix>& targets = {});

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

/// Which factors P R, Q R^-T of X = P Q^T are returned: no data tell them apart. In the metric of the logits, where
/// |v|^2 = |A1 v|^2 and |A2 v|^2 with centred keys, X = U S V^T.
enum class HeadSplit {
  sqrt,        ///< P = U S^1/2, Q = V S^1/2
  orthogonal,  ///< P = U S, Q = V
};

/// How X = P Q^T behind attention matrices is recovered: docs/attention.md, "Real heads".
struct HeadOptions {
  static constexpr Index rank_from_data = -1;

  std::string loss = "cross-entropy";  ///< what is polished: "cross-entropy", "softmax", or "log-odds": nothing
  /// r; 0: any X; `rank_from_data`: the largest gap in the spectrum of the log-odds, or where there is none the rank
  /// that predicts held-out sequences best
  Index rank = rank_from_data;
  /// W >= 0 of 1/2 W^2 |Z|^2, Z centred over the keys of each query. 0: none; of any X it is chosen by hold-out.
  double weight = 0;
  double rounding = 0x1p-23;  ///< relative, of B as it was stored: 2^-52 double, 2^-23 float, 2^-10 half, 2^-7 bfloat16
  HeadSplit split = HeadSplit::sqrt;
  std::uint64_t seed = 1;              ///< of random starts
  std::shared_ptr<Journal> journal{};  ///< as `NewtonOptions::journal`
};

/// What determined the rank.
enum class RankSource {
  given,
  gap,       ///< the largest fall of the log-odds' singular values
  hold_out,  ///< the error on held-out sequences
};

struct HeadResult {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  // Replicated. X and its factors have no part in directions that the data do not determine: least norm.
  RowMajorMatrix X;     ///< d1 x d2
  RowMajorMatrix P, Q;  ///< X = P Q^T; empty where the rank is 0. Other factors are P R, Q R^-T for any R, r x r.
  Index rank = 0;
  RankSource rank_source = RankSource::given;
  double gap = 0;  ///< the ratio of the log-odds' singular values in front of and behind it; 0: no such source
  VectorXd
      singular_values;   ///< of X in the metric of the logits, (A1^T A1)^1/2 X (A2^T A2)^1/2, A2 centred; with a rank
  double error = kNone;  ///< |softmax(A1 X A2^T) - B| / |B|
  double divergence = kNone;      ///< KL(B | softmax(A1 X A2^T)), mean over the queries, rows of B scaled to sum 1
  double log_odds_error = kNone;  ///< `error` before the polish
  double zeros = 0;               ///< share of B where a key is seen, but the attention is 0
  double resolution = 0;          ///< of B, from these zeros; 0: there are none
  /// Of one column of P or Q, in the start from subspaces; 0 where there was no such start.
  double equations = 0, unknowns = 0;
  /// The r-th and the next eigenvalue of the pieces' common subspace: 1 is common to all. NaN: no such start.
  double common = kNone, next_common = kNone;
  std::vector<std::string> null_directions;  ///< what the data do not determine, in words
  bool has_query_constant = false;  ///< A1 u = 1 for some u, as behind LayerNorm: a bias of the queries is part of P
  std::vector<std::string> notes, warnings;
  bool converged = true;  ///< the last fit ended before its limit of steps
  int steps = 0;          ///< Gauss-Newton steps on log-odds,
  int polish_steps = 0;   ///< and on the loss
  int products = 0;
  int reads = 0;           ///< of B
  double seconds = 0;      ///< of the first head, with what all heads share
  double cpu_seconds = 0;  ///< the same, of all threads and ranks
};

/// Collective. Recovers one X for each head from the targets that it has on the same queries and keys, softmax(A1 X
/// A2^T) ~ B over all sequences. Queries, keys, their Gram matrices and metrics are made once.
///
/// Log-odds are linear in X: log b_j = A2 X^T a_j + const. Their singular vectors span A1 P and A2 Q, so that P and Q
/// are intersections of known subspaces; Gauss-Newton on P and Q goes on from there until what is left is the rounding
/// of B, and ends on the loss. Exact data need no step. Per head, N queries of n keys: 10 N n r flops and a logarithm
/// and two exponentials for each number of B, 4 N d r, d^3; for all heads N d^2. Messages: some all-reduces of d^2
/// numbers.
///
/// sequences: without values and W; targets in them are those of the only head if `heads` is empty, else they may be
/// left out (0 x 0). heads: for each head B of each sequence, this rank's rows. Errors as for `check_sequences`; also
/// for options out of range, negative numbers in B and a B of a wrong shape.
std::vector<HeadResult> recover_heads(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                      const std::vector<std::vector<AttentionMatrix>>& heads,
                                      const HeadOptions& options);

/// How well attention F reproduces B. Means are over queries.
struct HeadFit {
  double queries = 0;
  double total_variation = 0;  ///< mean of 1/2 |f - b|_1, rows of B scaled to sum 1
  double divergence = 0;       ///< mean KL(b | f)
  double error = 0;            ///< |F - B| / |B|
  double same_largest = 0;     ///< the share of queries whose largest attention is on the same key
};

struct HeadQuality {
  std::vector<HeadFit> sequences;
  HeadFit all;
  HeadFit uniform;  ///< of attention that is the same for all keys that a query sees
};

/// Collective, one all-reduce. F = softmax(A1 X A2^T) beside B. X: d1 x d2, replicated; sequences as for
/// `recover_heads`; head: its B of each sequence, in place of the targets of these. N queries of n keys cost 2 N n r +
/// 4 N d r flops where X = P Q^T, else 2 N n d + 2 N d^2.
HeadQuality head_quality(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const RowMajorMatrix& X, const std::vector<AttentionMatrix>& head = {});
HeadQuality head_quality(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const HeadResult& found, const std::vector<AttentionMatrix>& head = {});

/// Local. What an error on held-out sequences means beside that on the sequences of the fit.
enum class HeadVerdict {
  predicts,   ///< |F - B| on held-out sequences is at most 3 times that of the fit, or 1e-4 of |B|
  roughly,    ///< it explains more than half of what uniform attention leaves
  fits_only,  ///< it does not, though the fit does: more sequences or a lower rank
  neither,
};
HeadVerdict head_verdict(const HeadQuality& fit, const HeadQuality& held_out);

/// How the layer behind outputs F A3 Y is recovered: docs/attention.md, "Layers".
struct LayerOptions {
  static constexpr Index rank_from_data = -1;

  /// r of X = P Q^T; 0: any X; `rank_from_data`: any X of at most `dense_limit` numbers, else as many as B has columns,
  /// 64 at most
  Index rank = rank_from_data;
  Index dense_limit = 4096;
  std::optional<RowMajorMatrix> Y;  ///< known, d3 x dv, replicated; without: found
  /// at most; fewer if one reproduces B, or six end at the lowest L. 0: 24; of X with more than `dense_limit` numbers
  /// 4, with a known Y 1
  int starts = 0;
  double rounding = 0x1p-52;  ///< relative, of B as it was stored
  std::uint64_t seed = 1;
  std::shared_ptr<Journal> journal{};  ///< as `NewtonOptions::journal`
};

/// Where one start led.
struct LayerEnd {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::string start;        ///< "random Y", "random X", "X = 0"
  double error = kNone;     ///< |F A3 Y - B| / |B| on the sequences of the starts
  double held_out = kNone;  ///< the same on those that were held out; NaN: there are none
};

struct LayerResult {
  // Replicated. What the data do not determine is 0: least norm.
  AttentionUnknowns unknowns;
  RowMajorMatrix P, Q;  ///< X = P Q^T; empty where the rank is 0
  Index rank = 0;
  VectorXd singular_values;             ///< of X in the metric of the logits, with a rank
  double error = LayerEnd::kNone;       ///< |F A3 Y - B| / |B|
  bool is_exact = false;                ///< it is the rounding of B
  std::vector<LayerEnd> ends;           ///< in the order of the starts
  int best = 0;                         ///< of them: the one that the last fit went on from
  std::int64_t sequences_held_out = 0;  ///< from the starts
  double equations = 0, unknown_numbers = 0;
  std::vector<std::string> notes, warnings;
  bool converged = true;  ///< the last fit ended before its limit of steps
  int steps = 0, products = 0;
  int reads = 0;  ///< of B
  double seconds = 0;
};

/// Collective. Finds X and Y with softmax(A1 X A2^T) A3 Y ~ B over all sequences by Gauss-Newton with Y eliminated, in
/// whitened coordinates, from several starts. With a rank a ridge on P, Q and Y is lowered as it goes. Of 8 sequences
/// and more the last eighth is held out from the starts and judges them; then all are fitted. Costs: `LayerPasses`.
///
/// Y known: the outputs are those of known values, and the problem is easy. Errors as for `check_sequences`; also for
/// sequences without values, a Y of a wrong shape or not finite and options out of range.
LayerResult recover_layer(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                          const LayerOptions& options);

/// Local. Which rank owns which rows of each sequence, (queries, keys) of which are given: whole sequences, long ones
/// by blocks of 512 queries, in equal shares of the work. `recover_heads` gives the same result on any number of ranks
/// with it, but for rounding.
std::vector<RowPartition> deal_sequences(const std::vector<std::pair<std::int64_t, std::int64_t>>& shapes, int ranks);

}  // namespace attnreg
