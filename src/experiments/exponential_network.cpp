#include <cmath>
#include <string>

#include "algebra/dense_factors.hpp"
#include "attnreg/row_matrix.hpp"
#include "errors/printable.hpp"
#include "experiments/experiments.hpp"
#include "numbers/random.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

/// `count` rows of N(0, I), functions of (seed, purpose, first + row).
RowMajorMatrix normal_rows(std::uint64_t seed, Purpose purpose, std::int64_t first, Index count, Index columns) {
  RowMajorMatrix rows(count, columns);
  RandomStream(seed, purpose).normal_rows(first, rows);
  return rows;
}

/// Points on the unit sphere.
RowMajorMatrix unit_rows(std::uint64_t seed, Index count, Index columns) {
  RowMajorMatrix rows = normal_rows(seed, Purpose::experiment_data, 0, count, columns);
  rows.rowwise().normalize();
  return rows;
}

/// This rank's neurons of F(x) = sum_r a_r e^{<w_r, x>}, at given points.
struct Network {
  RowMajorMatrix W, X;  ///< neurons x dimension, points x dimension
  VectorXd signs;       ///< a_r
  std::int64_t width;   ///< of all ranks

  RowMajorMatrix exponentials() const {
    RowMajorMatrix E = W * X.transpose();
    const auto all = span_of(E);
    kernels::exp(all, all);
    return E;
  }
};

Network make_network(const Communicator& communicator, const RowMajorMatrix& X, std::int64_t m, std::uint64_t seed) {
  const auto shares = RowPartition::in_blocks(m, 1, communicator.size());
  const std::int64_t first = shares.begin(communicator.rank());
  const Index count = shares.rows_local(communicator.rank());
  Network network{normal_rows(seed, Purpose::experiment_start, first, count, X.cols()), X, VectorXd(count), m};
  const RandomStream random(seed, Purpose::experiment_signs);
  for (Index r = 0; r < network.signs.size(); ++r) network.signs[r] = random.bits(first + r)[0] & 1 ? 1 : -1;
  return network;
}

/// Collective. Smallest and largest eigenvalue of H_ij = <x_i, x_j> mean_r e^{<w_r, x_i + x_j>}.
VectorXd kernel_eigenvalues(const Communicator& communicator, const Network& network) {
  const RowMajorMatrix E = network.exponentials();
  MatrixXd H = E.transpose() * E / static_cast<double>(network.width);
  communicator.sum(span_of(H));
  return symmetric_eigen(H.cwiseProduct(network.X * network.X.transpose()), false).values;
}

/// The same of its limit <x_i, x_j> e^{|x_i + x_j|^2 / 2}.
VectorXd limit_eigenvalues(const RowMajorMatrix& X) {
  const MatrixXd G = X * X.transpose();  // |x_i + x_j|^2 / 2 = 1 + <x_i, x_j>
  return symmetric_eigen(G.cwiseProduct(MatrixXd((1 + G.array()).exp())), false).values;
}

double rate_bound(const VectorXd& eigenvalues) { return 1 - eigenvalues[0] / eigenvalues[eigenvalues.size() - 1]; }

/// Collective. Trains one width; a row of the table.
std::vector<double> train(const Communicator& communicator, const ExponentialNetwork& options, const RowMajorMatrix& X,
                          const VectorXd& y, std::int64_t m) {
  Network network = make_network(communicator, X, m, options.seed);
  const RowMajorMatrix start = network.W;
  const VectorXd eigenvalues = kernel_eigenvalues(communicator, network);
  const double step = 1 / (static_cast<double>(m) * eigenvalues[eigenvalues.size() - 1]);
  double first = 0, now = 0;
  int steps = 0;
  for (;; ++steps) {
    const RowMajorMatrix E = network.exponentials();
    VectorXd residual = E.transpose() * network.signs;
    communicator.sum(span_of(residual));
    residual -= y;
    now = residual.norm();
    if (steps == 0) first = now;
    if (!(now > options.residual) || !std::isfinite(now) || steps == options.most_steps) break;
    network.W -= step * (network.signs.asDiagonal() * (E * residual.asDiagonal()) * X);
  }
  const RowMajorMatrix moved = network.W - start;
  const double movement = communicator.max(moved.rows() > 0 ? moved.rowwise().norm().maxCoeff() : 0.0);
  const double rate = steps > 0 ? std::pow(now / first, 1.0 / steps) : 0;
  return {
      static_cast<double>(m),          first, now, static_cast<double>(steps), movement, rate, rate_bound(eigenvalues),
      rate_bound(limit_eigenvalues(X))};
}

}  // namespace

Table exponential_network(const Communicator& communicator, const ExponentialNetwork& options) {
  const auto n = static_cast<Index>(options.points), d = static_cast<Index>(options.dimension);
  const RowMajorMatrix X = unit_rows(options.seed, n, d);
  const VectorXd y = normal_rows(options.seed, Purpose::experiment_data, n, 1, n).transpose();
  Table table{"exp-network",
              "Over-parameterised exponential regression, " + std::to_string(n) + " points in " + std::to_string(d) +
                  " dimensions, stopped at |F - y| <= " + text_of(options.residual),
              {"width", "initial", "final", "steps", "movement", "rate", "bound", "kernel_bound"},
              {},
              {"movement: of the neuron that moved farthest; wider networks move less",
               "rate: mean factor of |F - y| a step; bound: 1 - lambda_min / lambda_max of the kernel matrix H at the "
               "start, of a linear model; kernel_bound: of its limit of infinite width"}};
  for (const std::int64_t m : options.widths) table.rows.push_back(train(communicator, options, X, y, m));
  return table;
}

Table active_sets(const Communicator& communicator, const ActiveSets& options) {
  const auto d = static_cast<Index>(options.dimension);
  const RowMajorMatrix X = unit_rows(options.seed, options.points, d);
  Table table{
      "active-sets",
      "Neurons of a shifted ReLU that fire, " + std::to_string(options.points) + " points in " + std::to_string(d) +
          " dimensions, exact scan",
      {"width", "shift", "active", "expected", "bound"},
      {},
      {"active: mean fraction of the neurons with <w, x> >= shift; expected: P(N(0, 1) >= shift); bound: m^-0.2",
       "the scan reads every neuron; the sublinear search of the source is not implemented"}};
  for (const std::int64_t m : options.widths) {
    const double shift = std::sqrt(0.4 * std::log(static_cast<double>(m)));
    const auto shares = RowPartition::in_blocks(m, 1, communicator.size());
    const std::int64_t end = shares.end(communicator.rank());
    std::int64_t active = 0;
    constexpr Index kBlock = 4096;
    for (std::int64_t first = shares.begin(communicator.rank()); first < end; first += kBlock) {
      const Index count = static_cast<Index>(std::min<std::int64_t>(kBlock, end - first));
      const RowMajorMatrix W = normal_rows(options.seed, Purpose::experiment_start, first, count, d);
      active += ((W * X.transpose()).array() >= shift).count();
    }
    const double fraction =
        static_cast<double>(communicator.sum(active)) / (static_cast<double>(m) * static_cast<double>(options.points));
    table.rows.push_back({static_cast<double>(m), shift, fraction, std::erfc(shift / std::sqrt(2.0)) / 2,
                          std::pow(static_cast<double>(m), -0.2)});
  }
  return table;
}

}  // namespace attnreg::experiments
