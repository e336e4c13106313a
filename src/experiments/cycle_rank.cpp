#include <array>
#include <cmath>
#include <string>

#include "algebra/dense_factors.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "experiments/experiments.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

/// U, V, W, each n x k^2; row a of U is the k x k matrix U_a by columns, U_a[i, j] = U(a, i + k j).
using Factors = std::array<MatrixXd, 3>;

MatrixXd slice(const MatrixXd& factor, Index row, Index k) {
  const VectorXd entries = factor.row(row);
  return Eigen::Map<const MatrixXd>(entries.data(), k, k);
}

/// The equations for factor `mode`: tr(F_f G_g H_h) = sum_ij F_f[i, j] (G_g H_h)[j, i] with the cyclic order F, G, H.
/// Row g + n h holds the (G_g H_h)[j, i].
MatrixXd equations(const Factors& factors, int mode, Index k) {
  const MatrixXd& G = factors[static_cast<std::size_t>((mode + 1) % 3)];
  const MatrixXd& H = factors[static_cast<std::size_t>((mode + 2) % 3)];
  const Index n = G.rows();
  MatrixXd M(n * n, k * k);
  for (Index h = 0; h < n; ++h) {
    const MatrixXd right = slice(H, h, k);
    for (Index g = 0; g < n; ++g) {
      const MatrixXd transposed = (slice(G, g, k) * right).transpose();
      M.row(g + n * h) = Eigen::Map<const Eigen::RowVectorXd>(transposed.data(), k * k);
    }
  }
  return M;
}

/// The tensor as three matrices: unfoldings[mode](g + n h, f) with the indices in the same cyclic order.
std::array<MatrixXd, 3> unfold(const MatrixXd& first) {
  const Index n = first.cols();
  std::array<MatrixXd, 3> unfoldings{first, MatrixXd(n * n, n), MatrixXd(n * n, n)};
  for (Index a = 0; a < n; ++a)
    for (Index b = 0; b < n; ++b)
      for (Index c = 0; c < n; ++c) {
        const double value = first(b + n * c, a);
        unfoldings[1](c + n * a, b) = value;
        unfoldings[2](a + n * b, c) = value;
      }
  return unfoldings;
}

MatrixXd normal_matrix(const RandomStream& random, std::int64_t index, Index rows, Index columns) {
  MatrixXd matrix(rows, columns);
  random.normals(index, span_of(matrix));
  return matrix;
}

Factors random_factors(const RandomStream& random, std::int64_t first_index, Index n, Index k) {
  Factors factors;
  for (std::size_t mode = 0; mode < 3; ++mode)
    factors[mode] = normal_matrix(random, first_index + static_cast<std::int64_t>(mode), n, k * k);
  return factors;
}

/// `draws` rows of M and of the right-hand sides, drawn with replacement by the leverage scores of M, row j scaled by
/// (draws p_j)^{-1/2}.
void sample(MatrixXd& M, MatrixXd& right, std::int64_t draws, const RandomStream& random, std::int64_t step) {
  const ThinSvd svd = thin_svd(M);
  const Index rank = svd.rank();
  if (rank == 0) return;
  VectorXd cumulative = svd.U.leftCols(rank).rowwise().squaredNorm() / static_cast<double>(rank);
  const VectorXd probabilities = cumulative;
  for (Index j = 1; j < cumulative.size(); ++j) cumulative[j] += cumulative[j - 1];
  MatrixXd rows(draws, M.cols()), values(draws, right.cols());
  for (Index draw = 0; draw < draws; ++draw) {
    const double u = random.uniform(step, static_cast<std::uint32_t>(draw)) * cumulative[cumulative.size() - 1];
    const auto above = std::upper_bound(cumulative.begin(), cumulative.end(), u);
    const Index j = std::min<Index>(above - cumulative.begin(), cumulative.size() - 1);
    const double scale = 1 / std::sqrt(static_cast<double>(draws) * probabilities[j]);
    rows.row(draw) = scale * M.row(j);
    values.row(draw) = scale * right.row(j);
  }
  M = std::move(rows);
  right = std::move(values);
}

/// |A - fit| / |A| after the given sweeps from one random start.
double fit(const std::array<MatrixXd, 3>& unfoldings, const CycleRank& options, int start) {
  const auto k = static_cast<Index>(options.rank);
  const RandomStream starts(options.seed, Purpose::experiment_start);
  const RandomStream rows(options.seed, Purpose::experiment_signs, static_cast<std::uint32_t>(start));
  Factors factors = random_factors(starts, std::int64_t{3} * start, static_cast<Index>(options.size), k);
  for (int step = 0; step < 3 * options.sweeps; ++step) {
    const int mode = step % 3;
    MatrixXd M = equations(factors, mode, k), right = unfoldings[static_cast<std::size_t>(mode)];
    if (options.sampled_rows > 0) sample(M, right, options.sampled_rows, rows, step);
    factors[static_cast<std::size_t>(mode)] = least_squares(std::move(M), right).transpose();
  }
  return (equations(factors, 0, k) * factors[0].transpose() - unfoldings[0]).norm() / unfoldings[0].norm();
}

}  // namespace

Table cycle_rank(const Communicator& communicator, const CycleRank& options) {
  const bool in_range = options.size >= 1 && options.size <= 256 && options.rank >= 1 && options.rank <= options.size &&
                        options.sampled_rows >= 0 && options.sampled_rows <= (1 << 20) && options.starts >= 1 &&
                        options.sweeps >= 1 && options.noise >= 0 && std::isfinite(options.noise);
  if (!in_range)
    refuse("cycle rank needs 1 <= k <= n <= 256, starts and sweeps >= 1, noise >= 0, and at most 2^20 rows");
  const auto n = static_cast<Index>(options.size), k = static_cast<Index>(options.rank);
  const RandomStream data(options.seed, Purpose::experiment_data);
  const Factors truth = random_factors(data, 0, n, k);
  MatrixXd tensor = equations(truth, 0, k) * truth[0].transpose();
  const MatrixXd noise = normal_matrix(data, 3, tensor.rows(), tensor.cols());
  tensor += options.noise * tensor.norm() / noise.norm() * noise;
  const auto unfoldings = unfold(tensor);

  std::vector<double> residuals(static_cast<std::size_t>(options.starts), 0);
  for (int start = communicator.rank(); start < options.starts; start += communicator.size())
    residuals[static_cast<std::size_t>(start)] = fit(unfoldings, options, start);
  communicator.sum(residuals);
  const bool sampled = options.sampled_rows > 0;
  Table table{"cycle-rank",
              "Cycle rank " + std::to_string(k) + ", side " + std::to_string(n) + ", noise " + text_of(options.noise) +
                  ", " + (sampled ? std::to_string(options.sampled_rows) + " sampled of " : std::string("all ")) +
                  std::to_string(n * n) + " equations a step, " + std::to_string(options.sweeps) + " sweeps",
              {"noise", "sampled_rows", "start", "residual"},
              {},
              {"residual: |A - fit| / |A|; starts far above the noise ended in another local minimum"}};
  for (int start = 0; start < options.starts; ++start)
    table.rows.push_back({options.noise, static_cast<double>(options.sampled_rows), static_cast<double>(start),
                          residuals[static_cast<std::size_t>(start)]});
  return table;
}

}  // namespace attnreg::experiments
