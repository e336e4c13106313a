#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg::experiments {

/// What an experiment found: numbers by row and column, and how to read them.
struct Table {
  std::string name;  ///< "polynomial-attention"; names its file
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<double>> rows;  ///< as many numbers each as there are columns
  std::vector<std::string> reading;       ///< a sentence each

  /// The value in the given row of the column with this name; throws std::out_of_range.
  double at(std::size_t row, std::string_view column) const {
    const auto found = std::ranges::find(columns, column);
    if (found == columns.end()) throw std::out_of_range("no column " + std::string(column));
    return rows.at(row).at(static_cast<std::size_t>(found - columns.begin()));
  }
};

// Small experiments after the papers that are at hand as abstracts only; docs/experiments.md says what each paper
// claims and what is shown here. Every function is collective, takes replicated options, shares its work between the
// ranks and returns the same table on all of them (figures agree up to rounding for different numbers of ranks).
// The program gives options in range; `cycle_rank` refuses others: `InvalidArgument` on all ranks. All random numbers
// are functions of the seed.

/// Polynomial attention separates what low degrees cannot (arXiv 2310.20051, Theorem 6.5, as reconstructed in
/// docs/experiments.md): n = (d - 2) t tokens with Q = K = V = A, column 1 of A = a e_j, columns 2 .. d - 1 = b (I
/// stacked t times), column d = c 1; a = a_0 (set D_0) or a_1 (D_1); the network fires if <row of P V, y> > c + theta
/// for one of m random sign vectors y.
struct PolynomialAttention {
  std::int64_t columns = 34;  ///< d >= 3
  std::int64_t copies = 32;   ///< t >= 1
  double a0 = 0.05, a1 = 1, b = 0.04, c = 0.5, theta = 0.1;
  int networks = 35;  ///< m
  int draws = 40;     ///< of the sign vectors
  std::vector<std::int64_t> degrees{1, 2, 3, 4, 5, 6, 8, 16, 32, 64};
  std::uint64_t seed = 1;
};
/// Refuses columns < 3, copies < 1, c = 0, draws < 1, degrees < 1 and numbers that are not finite.
/// Columns: degree; share, closed_share: P_jj of D_1 from the attention kernel, and rho^beta / (rho^beta + (t - 1)
/// k^beta + n - t) with rho = (a^2 + b^2 + c^2) / c^2, k = (b^2 + c^2) / c^2; margin0, margin1: the largest <., y> over
/// all rows and *all* sign vectors, less c + theta; closed_margin1 = a_1 share + b - theta (> 0: D_1 can fire); fires0,
/// fires1: fractions of the draws.
Table polynomial_attention(const Communicator& communicator, const PolynomialAttention& options);

/// The same on data of the caller's: Q = K = V = D0 or D1, the rows of a matrix each, with as many columns. Of
/// `options` c, theta, networks, draws, degrees and seed. Columns: degree; margin0, margin1, fires0, fires1 as above;
/// gap = margin1 - margin0, above 0 where some threshold separates the two. Refuses as `apply_attention` does: an odd
/// degree and a negative inner product.
Table polynomial_sets(const RowMatrix& D0, const RowMatrix& D1, const PolynomialAttention& options);

/// The same for a vector: u_i = h_i^beta, f = u / sum u; fires if <f, y> > tau for one of m sign vectors. D_0: all h_i
/// uniform in [1, h_0]; D_1: one of them is h_1.
struct PolynomialVector {
  std::int64_t rows = 1000;
  double h0 = 1.2, h1 = 4, tau = 0.2;
  int networks = 20, draws = 500;
  std::vector<std::int64_t> degrees{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::uint64_t seed = 1;
};
/// Columns: degree; fires0, fires1; predicted1: 1 - (1 - q)^m with q = P(N(+-f_j, sum of the other f_i^2) > tau), means
/// over h.
Table polynomial_vector(const Communicator& communicator, const PolynomialVector& options);

/// Fits A_abc = tr(U_a V_b W_c), k x k factors (tensor ring, the "cycle rank" of arXiv 2304.06594), by alternating
/// least squares; `sampled_rows` > 0: each from so many of its n^2 equations, drawn by their leverage scores.
struct CycleRank {
  std::int64_t size = 12;  ///< n, of each of the three sides
  std::int64_t rank = 2;   ///< k, with k^2 <= n^2
  double noise = 0;        ///< relative to the tensor
  std::int64_t sampled_rows = 0;
  int starts = 6, sweeps = 60;
  std::uint64_t seed = 1;
};
/// One row per start: noise; sampled_rows; start; residual |A - fit| / |A|.
Table cycle_rank(const Communicator& communicator, const CycleRank& options);

/// Gradient descent on 1/2 sum_i (F(x_i) - y_i)^2 with F(x) = sum_r a_r e^{<w_r, x>}, a_r = +-1, w_r(0) ~ N(0, I),
/// |x_i| = 1 (arXiv 2303.16504), step 1 / (m lambda_max(H)), H_ij = <x_i, x_j> mean_r e^{<w_r, x_i + x_j>}.
struct ExponentialNetwork {
  std::vector<std::int64_t> widths{500, 4000};  ///< m
  std::int64_t points = 10, dimension = 8;
  double residual = 1e-2;  ///< |F - y| to stop at
  int most_steps = 5000;
  std::uint64_t seed = 1;
};
/// One row per width: width; initial, final: |F - y|; steps; movement: max |w_r - w_r(0)|; rate: mean factor a step;
/// bound: 1 - lambda_min / lambda_max of H; kernel_bound: the same of its limit <x_i, x_j> e^{|x_i + x_j|^2 / 2}.
Table exponential_network(const Communicator& communicator, const ExponentialNetwork& options);

/// Neurons that fire, <w_r, x> >= b with b = sqrt(0.4 ln m) and w_r ~ N(0, I), |x| = 1 (arXiv 2208.05395), found by an
/// exact scan.
struct ActiveSets {
  std::vector<std::int64_t> widths{1000, 10000, 100000, 1000000};  ///< m
  std::int64_t dimension = 8;
  int points = 4;
  std::uint64_t seed = 1;
};
/// One row per width: width; shift: b; active: mean fraction; expected: P(N(0, 1) >= b); bound: m^-0.2.
Table active_sets(const Communicator& communicator, const ActiveSets& options);

/// Distributed gradient descent on softmax regression whose contributions can be checked (after arXiv 2308.10502): the
/// rows are dealt out in blocks, each block's owner says what it adds to the gradient, another rank makes the blocks
/// that were drawn again and compares. One owner, in every step, makes its part wrong by `forgery`, relative.
struct CheckedGradient {
  std::int64_t rows = 256, columns = 4;
  int blocks = 8;
  std::vector<std::int64_t> checks{1, 2, 4};  ///< blocks that are checked in a step
  double forgery = 1e-6;
  int trials = 200, most_steps = 200;
  std::uint64_t seed = 1;
};
/// One row per number of checks s: checks; steps: mean number until the forger is found; expected: blocks / s; missed:
/// trials in which it was not found; false_alarms: honest parts that were taken for forged; honest_difference: the
/// largest relative difference of an honest part that was made again.
Table checked_gradient(const Communicator& communicator, const CheckedGradient& options);

}  // namespace attnreg::experiments
