#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/row_storage.hpp"
#include "files/tensor_file.hpp"

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
// The program gives options in range. All random numbers are functions of the seed.

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

/// A_abc = tr(U_a V_b W_c) with factors of N(0, 1), and noise of so much of its norm.
struct MadeTensor {
  std::int64_t size = 12;  ///< n, of each of the three sides
  std::int64_t rank = 2;   ///< k
  double noise = 0;
  std::uint64_t seed = 1;
};
SlicedTensor made_tensor(const Communicator& communicator, const MadeTensor& options);

/// Fits A_abc = tr(U_a V_b W_c), k x k factors (tensor ring, the "cycle rank" of arXiv 2304.06594), by alternating
/// least squares from random starts: each step from all equations of a factor, or from `sampled_rows` that are drawn by
/// products of leverage scores (`TensorRing`). A start ends when ten sweeps lower the residual by less than the
/// tolerance, relative.
struct CycleRank {
  std::int64_t rank = 2;  ///< k, with k^2 <= n_i n_j for each two sides
  std::int64_t sampled_rows = 0;
  int starts = 6, sweeps = 500;  ///< sweeps: the most
  double tolerance = 1e-3;
  double residual = 1e-14;  ///< |A - fit| / |A| to stop at
  /// Whether each rank has all of A and starts of its own, or all share each start and have slices of A: the first
  /// where every rank has a start, and twice A a rank takes at most half of the memory that its node has.
  enum class Spread { by_memory, starts, slices } spread = Spread::by_memory;
  std::uint64_t seed = 1;
};
struct CycleRankFit {
  Table table;  ///< a row per start: start; sweeps; residual |A - fit| / |A|; seconds of the sweeps
  std::array<Eigen::MatrixXd, 3> factors;  ///< U, V, W of the best start, k^2 x n: U_a by columns in column a
};
/// Memory: the slices of A, or all of it. `InvalidArgument` on all ranks: options out of range, A = 0.
CycleRankFit cycle_rank(const Communicator& communicator, SlicedTensor tensor, const CycleRank& options);

/// Points x_i of a network, replicated: rows of X, of length 1, and y.
struct Points {
  RowMajorMatrix X;
  Eigen::VectorXd y;
};
/// Random directions, and y of N(0, 1) or, with `labels`, the sign of the first coordinate, 1 or -1. Local.
Points random_points(std::int64_t count, std::int64_t dimension, bool labels, std::uint64_t seed);
/// Local. The rows of X scaled to length 1. `InvalidArgument` on all ranks: a row of zeros, or y of another length.
Points unit_points(RowMajorMatrix X, Eigen::VectorXd y);

/// Fits F(x) = sum_r a_r e^{<w_r, x>}, a_r = +-1, w_r(0) ~ N(0, I), |x_i| = 1 (arXiv 2303.16504) to points by gradient
/// descent on 1/2 sum_i (F(x_i) - y_i)^2 with the step 1 / (m lambda_max(H)), H_ij = <x_i, x_j> mean_r e^{<w_r, x_i +
/// x_j>}; or by Gauss-Newton, the step of least norm after which the linear model fits, halved until |F - y| falls. The
/// neurons are spread over the ranks.
struct ExponentialNetwork {
  std::vector<std::int64_t> widths{500, 4000};  ///< m
  bool gauss_newton = false;
  double residual = 1e-2;  ///< |F - y| to stop at
  int most_steps = 5000;
  std::uint64_t seed = 1;
};
/// One row per width: width; initial, final: |F - y|; steps; movement: max |w_r - w_r(0)|; rate: mean factor a step;
/// bound: 1 - lambda_min / lambda_max of H; kernel_bound: the same of its limit <x_i, x_j> e^{|x_i + x_j|^2 / 2}.
Table exponential_network(const Communicator& communicator, const Points& points, const ExponentialNetwork& options);

/// The smallest width m, within 5 %, with which gradient descent on the first n points lowers |F - y|^2 by a factor of
/// 1 - lambda_min / (2 lambda_max) a step, eigenvalues of the limit, until |F - y| is `reduction` of its start. The
/// search doubles m and bisects, as if all larger widths did. Random starts differ widely, so the median of several
/// counts.
struct SmallestWidths {
  std::vector<std::int64_t> counts;  ///< n, each at most the number of points
  double reduction = 1e-2;
  int starts = 9;
  std::uint64_t seed = 1;
};
/// One row per n: points; width: the median; least, most: of the starts; steps: those allowed; slope: d ln m / d ln n
/// since the first row.
Table smallest_widths(const Communicator& communicator, const Points& points, const SmallestWidths& options);

/// Adversarial training (arXiv 2208.05395) of f(x) = s sum_r a_r max(<w_r, x> - b, 0), a_r = +-1, w_r(0) ~ N(0, I),
/// b = sqrt(0.4 ln m), s = (m P(N(0, 1) >= b))^{-1/2}, on |x_i| = 1, y_i = +-1 with the logistic loss: a step of
/// gradient descent on a batch whose points were moved, within a ball, by gradient ascent of their loss. The neurons
/// are spread over the ranks; those with <w_r, x> >= b are reported by a `NeuronTree`, or (dense) by looking at all.
///
/// by_work takes the tree where the work that it counts is less than that of all inner products: before the first step
/// and then 8, 16, 32, ... steps later a part of a tree is tried out on the batch; with a tree its own counts are
/// looked at each 8 steps, and it is dropped where it costs more. No clock has a part in this, and all ranks do the
/// same.
struct AdversarialTraining {
  enum class Structure { by_work, tree, dense };

  std::vector<std::int64_t> widths{1000, 10000, 100000};  ///< m >= 2
  double radius = 0.1;                                    ///< of the ball
  int attack_steps = 3;                                   ///< each of 2.5 radius / attack_steps, projected
  int steps = 20, batch = 32;
  double rate = 2;  ///< of the gradient of the mean loss of a batch
  Structure structure = Structure::by_work;
  bool compares = true;  ///< with dense training
  std::uint64_t seed = 1;
};
struct AdversarialFit {
  /// One row per width: width; shift: b; active: mean fraction of the neurons; expected: P(N(0, 1) >= b); bound:
  /// m^-0.2; tree: fraction of the steps that were made with the tree; touched: fraction of the inner products that
  /// were formed, nodes: of those with centres of balls; loss_before, loss: mean under attack, of at most 200 points;
  /// accuracy, and robust: under attack; movement: max |w_r - w_r(0)|; seconds; and if it compares, dense_seconds;
  /// difference: max |w_r - w_r of dense training|.
  Table table;
  RowMajorMatrix W;   ///< of the last width: this rank's neurons, a row each
  Eigen::VectorXd a;  ///< likewise: s a_r
  std::int64_t first_neuron = 0, width = 0;
};
/// `InvalidArgument` on all ranks: labels other than 1 and -1.
AdversarialFit adversarial_training(const Communicator& communicator, const Points& points,
                                    const AdversarialTraining& options);

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
