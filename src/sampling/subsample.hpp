#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <limits>

#include "attnreg/leverage.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

/// How a sparse diagonal is drawn.
struct SubsampleOptions {
  double epsilon = 0.5;           ///< wanted spectral error, in (0, 1)
  double delta = 0.01;            ///< probability of missing it, in (0, 1)
  std::int64_t rows = 0;          ///< rows expected, or draws; 0: as many as epsilon and delta ask for
  bool with_replacement = false;  ///< else each row is kept or not, independently of the others
  bool exact_scores = false;      ///< by QR, d^2 operations a row
  LeverageOptions scores{.jl_columns = 64};
};

/// A diagonal D~ >= 0 with few entries for which A^T D~ A is near A^T D A.
struct Subsample {
  SampledRows rows;         ///< its entries; `weights` are those of D~
  LeverageScores scores;    ///< of D^{1/2} A
  double expected = 0;      ///< rows; with replacement the draws. Replicated
  double oversampling = 0;  ///< c of `PoissonOptions`; 0 with replacement
};

/// Collective. SUBSAMPLE of the thesis (Yin 2024, Lemma 2.1.16) and Definition 5.3 of arXiv 2304.04397, with the errors
/// corrected that docs/errata.md lists: with probability 1 - delta at least
///
///     (1 - epsilon) A^T D A <= A^T D~ A <= (1 + epsilon) A^T D A,
///
/// where scores that are right to a factor of 2 are counted on unless they are exact. The same entries on any number of
/// ranks. Reads of A and messages are those of the scores, and up to 20 all-reduces of 8 bytes for `rows`.
///
/// D: >= 0, rows_local, or empty for ones. `InvalidArgument` on all ranks: options out of range, a bad D, numbers of A
/// that are not finite, A^T D A = 0.
Subsample subsample(const RowMatrix& A, const Eigen::VectorXd& D, const SubsampleOptions& options);

/// How far A^T D~ A is from A^T D A: the largest |v^T A^T D~ A v / v^T A^T D A v - 1|. Replicated.
struct SubsampleError {
  /// Over all v that A^T D A does not take to 0, as far as rounding tells; NaN where d is above the limit.
  double spectral = std::numeric_limits<double>::quiet_NaN();
  double probed = 0;  ///< over some random v, N(0, I): a lower estimate
};

/// Collective. One read for each probe, and up to d = `limit` two for the Gram matrices, whose factor and eigenvalues
/// rank 0 makes in 8 * 4 d^2 bytes. Two all-reduces of 8 and 16 bytes a probe, and two reduces of 8 d^2 bytes. Where
/// the Gram matrices do not show all directions of A, as its condition is above 1e5, its columns depend on each other,
/// or squares under- or overflow, two more reads and QR factorizations of all rows, 2 d^2 flops a row each, and two
/// broadcasts of 8 d^2 bytes per rank.
SubsampleError subsample_error(const RowMatrix& A, const Eigen::VectorXd& D, const SampledRows& sample, int probes,
                               std::uint64_t seed, Index limit = 2000);

}  // namespace attnreg
