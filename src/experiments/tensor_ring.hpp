#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_partition.hpp"
#include "experiments/experiments.hpp"

namespace attnreg::experiments {

/// The slices a in [first, first + count) of a tensor of Frobenius norm 1.
struct TensorSlices {
  std::array<Index, 3> sides{};
  Index first = 0, count = 0;
  const double* entries = nullptr;  ///< (a, b, c) at ((a - first) n2 + b) n3 + c
};

/// Local. out += weight (G H)^T by columns, of k x k matrices by columns: what an equation says of F in tr(F G H).
void add_ring_product(Index k, const double* G, const double* H, double weight, double* out);

/// Alternating least squares, from one random start, for A_abc = tr(U_a V_b W_c) with k x k matrices. A step changes a
/// factor by the least-squares solution of what is left, A - fit, by normal equations: what rounding leaves is taken up
/// by later steps. Its equations are all pairs (b, c), or some that are drawn: b by the leverage scores of V's k^2
/// columns, c by those of W's, a tenth of both uniformly, so that n^2 scores are never formed. The score of an equation
/// is at most the product of the two (Malik, Becker, ICML 2021).
class TensorRing {
 public:
  /// Collective. The slices are those of this rank, and together all.
  TensorRing(const Communicator& communicator, const TensorSlices& slices, const CycleRank& options, int start);

  /// Collective. Renews U, V and W. Returns |A - fit| before: the root of the mean of what the three steps found, of
  /// drawn equations an estimate. For each factor 8 (n k^2 + k^4 + 1) bytes are summed and 8 n (k^2 + 1) broadcast.
  double sweep();
  /// Collective. |A - fit|, from all entries. One sum of 8 bytes.
  double residual() const;

  /// U, V, W, k^2 x n: U_a by columns in column a. Replicated.
  const std::array<MatrixXd, 3>& factors() const { return factors_; }

 private:
  /// One for each place along the axis of the factor: places along the two next axes, in cyclic order.
  struct Equation {
    Index first, second;
    double weight;
  };
  /// M M^T and M R, where the columns of M are the equations and R what is left of their right sides, and |R|^2.
  struct NormalEquations {
    MatrixXd gram, right;
    double squares = 0;
  };
  /// By which the places along an axis are drawn.
  struct Chances {
    VectorXd shares, cumulative;
  };

  double renew(int mode);
  void add(int mode, std::span<const Equation> equations, NormalEquations& sums) const;
  void add_all(int mode, NormalEquations& sums) const;
  std::vector<Equation> drawn(int mode) const;
  void renew_chances(int mode);
  void balance();
  Index stride(int mode) const;

  Communicator communicator_;
  TensorSlices slices_;
  Index k_;
  std::int64_t sampled_rows_;
  std::uint64_t seed_;
  int start_;
  std::int64_t step_ = 0;
  std::array<MatrixXd, 3> factors_;
  std::array<Chances, 3> chances_;
};

}  // namespace attnreg::experiments
