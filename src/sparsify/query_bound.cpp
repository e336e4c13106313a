#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/gram_kernels.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "sparsify/key_errors.hpp"

namespace attnreg {

namespace {

constexpr Index kKeysAtOnce = 16;  // of a thread, with all keys: 8 MiB for 32768 of them
constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// ln of E_V and E_1.
struct Norms {
  double log_values = 0, log_one = 0;
};

/// Keys by the features phi(k / c), as vectors of norm 1 with factors: a_j e^{s |k_j|^2 / (2 c^2)} = factor_j
/// e^{log_scale}.
struct ScaledKeys {
  VectorXd factors;
  double log_scale;
};

ScaledKeys scaled_keys(const TokenAttention& attention, const KeptKeys& kept, const Eigen::VectorXd& q0, double c2) {
  const double s = attention.scale();
  VectorXd change = VectorXd::Constant(attention.key_count(), -1);
  for (std::size_t k = 0; k < kept.keys.size(); ++k) change[kept.keys[k]] += kept.weights[static_cast<Index>(k)];
  const VectorXd logs = s * (attention.keys() * q0) + s / (2 * c2) * VectorXd(attention.keys().rowwise().squaredNorm());
  const double largest = logs.maxCoeff();
  return {change.cwiseProduct((logs.array() - largest).exp().matrix()), largest};
}

/// Collective. sum_jl factor_j factor_l e^{-s |k_j - k_l|^2 / (2 c^2)}, alone and times <v_j, v_l>.
Norms norms_of(const TokenAttention& attention, const ScaledKeys& scaled, double c2) {
  const Communicator& communicator = attention.communicator();
  const RowMajorMatrix &K = attention.keys(), &V = attention.values();
  const Index n = K.rows(), tiles = (n + kTokenChunk - 1) / kTokenChunk;
  const double s = attention.scale() / c2;
  const VectorXd squares = K.rowwise().squaredNorm();
  const RowMajorMatrix KT = K.transpose(), VT = V.transpose();
  Eigen::Vector2d sums = Eigen::Vector2d::Zero();
  const InWork work("bound for any query", "keys", static_cast<double>(n) / communicator.size());
  for (Index tile = communicator.rank(); tile < tiles && !is_in_vain(); tile += communicator.size()) {
    const Index first = tile * kTokenChunk, rows = std::min(kTokenChunk, n - first);
    MatrixXd parts = MatrixXd::Zero(2, rows);
#pragma omp parallel for schedule(static)
    for (Index at = 0; at < rows; at += kKeysAtOnce) {
      const Index height = std::min(kKeysAtOnce, rows - at);
      RowMajorMatrix E = RowMajorMatrix::Zero(height, n), inner = E;
      kernels::add_matrix_product(K.row(first + at).data(), height, K.cols(), KT.data(), n, false, E.data());
      kernels::add_matrix_product(V.row(first + at).data(), height, V.cols(), VT.data(), n, false, inner.data());
      for (Index i = 0; i < height; ++i)
        E.row(i).array() = s * (E.row(i).array() - (squares.transpose().array() + squares[first + at + i]) / 2);
      const auto all = span_of(E);
      kernels::exp(all, all);
      for (Index i = 0; i < height; ++i) {
        E.row(i).array() *= scaled.factors.transpose().array() * scaled.factors[first + at + i];
        parts(0, at + i) = E.row(i).cwiseProduct(inner.row(i)).sum();
        parts(1, at + i) = E.row(i).sum();
      }
    }
    sums += parts.rowwise().sum();
    InWork::add(rows);
  }
  communicator.sum(span_of(sums));
  // The sums may have lost digits: at most this of the sum of the terms' sizes.
  const double rounding = 16 * std::numeric_limits<double>::epsilon() * std::pow(scaled.factors.lpNorm<1>(), 2);
  const double size = V.rowwise().squaredNorm().maxCoeff();
  const auto log_root = [&](double square, double error) {
    return scaled.log_scale + std::log(std::max(square, 0.0) + error) / 2;
  };
  return {log_root(sums[0], rounding * size), log_root(sums[1], rounding)};
}

}  // namespace

QueryBound query_bound(const TokenAttention& attention, const KeptKeys& kept) {
  if (attention.key_count() > kMostBounded) return {};
  const Communicator& communicator = attention.communicator();
  const RowMajorMatrix& Q = attention.queries();
  const auto count = static_cast<double>(attention.queries_global());
  VectorXd q0 = Q.colwise().sum().transpose();
  communicator.sum(span_of(q0));
  q0 /= count;
  const RowMajorMatrix U = Q.rowwise() - q0.transpose();
  const double farthest = communicator.max(U.rows() > 0 ? U.rowwise().norm().maxCoeff() : 0.0),
               longest = attention.keys().rowwise().norm().maxCoeff();
  const double c2 = farthest > 0 && longest > 0 ? longest / farthest : 1;
  const Norms norms = norms_of(attention, scaled_keys(attention, kept, q0, c2), c2);

  std::vector<Index> all(static_cast<std::size_t>(Q.rows()));
  std::iota(all.begin(), all.end(), Index{0});
  EstimatedOutputs found{RowMajorMatrix::Zero(Q.rows(), attention.values().cols()),
                         VectorXd::Constant(Q.rows(), -kInfinite)};
  estimate_outputs(attention, FactoredKeys{kept.keys, kept.weights, kept.weights}, all, false, found);
  const double root_mean = attention.size() / std::sqrt(count);
  VectorXd bounds(Q.rows());
  for (Index i = 0; i < Q.rows(); ++i) {
    const double factor = attention.scale() * c2 / 2 * U.row(i).squaredNorm() - found.log_normaliser[i];
    const double values = std::exp(factor + norms.log_values), one = std::exp(factor + norms.log_one);
    const double size = (found.output.row(i) - attention.value_mean()).norm();
    bounds[i] = one < 1 ? (values + size * one) / (1 - one) / (root_mean > 0 ? root_mean : 1) : kInfinite;
  }
  std::vector<double> sorted = communicator.all_gather(span_of(std::as_const(bounds)));
  std::ranges::sort(sorted);
  return {sorted[sorted.size() / 2], sorted.back()};
}

}  // namespace attnreg
