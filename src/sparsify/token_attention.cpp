#include "sparsify/token_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "algebra/blas_products.hpp"
#include "algebra/pivoted_factor.hpp"
#include "apply/attention_kernel.hpp"
#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "numbers/exact_sum.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

namespace {

Index chunks_of(std::size_t keys) { return (static_cast<Index>(keys) + kTokenChunk - 1) / kTokenChunk; }

/// S P, S: m x k, P: k x n, on the calling thread.
RowMajorMatrix thread_product(const double* S, Index m, Index k, const RowMajorMatrix& P) {
  RowMajorMatrix product = RowMajorMatrix::Zero(m, P.cols());
  kernels::add_matrix_product(S, m, k, P.data(), P.cols(), false, product.data());
  return product;
}

/// Features of the keys of a chunk, in one block of queries: P, its transpose, and P_ij ((|O_i|^2 + spread) / 2 - <O_i,
/// v_j>), so that x_j^T x_l = P^T P <v_j, v_l> + P^T W + W^T P.
struct ChunkFeatures {
  RowMajorMatrix transposed, W;
};

/// Pairs of chunks with the places of their sums.
struct ChunkPair {
  Index a, b, first;
};

}  // namespace

TokenAttention::TokenAttention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values, double scale,
                               const AttentionMask* mask)
    : communicator_(queries.communicator()), partition_(queries.partition()), scale_(scale) {
  check_attention_shapes(queries, keys, &values);
  const auto n_k = static_cast<Index>(keys.rows_global()), d_v = values.columns();
  require_memory(communicator_,
                 8 * (4.0 * static_cast<double>(n_k) * static_cast<double>(keys.columns() + d_v) +
                      static_cast<double>(queries.rows_local()) * static_cast<double>(queries.columns() + 2 * d_v)),
                 std::to_string(n_k) + " keys and values on every rank");
  keys_ = shared_rows(keys, 0, n_k);
  values_ = shared_rows(values, 0, n_k);
  if (!values_.isZero(0)) value_scale_ = scale_for(values_.cwiseAbs().maxCoeff());
  values_ *= value_scale_;
  keys_.rowwise() -= Eigen::RowVectorXd(keys_.colwise().mean());
  value_mean_ = values_.colwise().mean();
  values_.rowwise() -= value_mean_;
  visible_ = visible_keys(queries, keys, mask);

  // The last of the values gives the second moment.
  const Index first = static_cast<Index>(keys.first_row()), mine = keys.rows_local();
  RowMajorMatrix with_squares(mine, d_v + 1);
  with_squares << values_.middleRows(first, mine), values_.middleRows(first, mine).rowwise().squaredNorm();
  const RowMatrix centred(communicator_, keys.partition(), RowMajorMatrix(keys_.middleRows(first, mine))),
      extended(communicator_, keys.partition(), std::move(with_squares));
  AttentionOutput found = apply_attention(queries, centred, extended, {.scale = scale}, mask);
  log_normaliser_ = std::move(found.log_normaliser);
  output_ = found.output.leftCols(d_v);
  const VectorXd spreads = (found.output.col(d_v) - output_.rowwise().squaredNorm()).cwiseMax(0),
                 sizes = (output_.rowwise() + value_mean_).rowwise().squaredNorm();
  spread_ = exact_sum(communicator_, spreads, queries_global()) / static_cast<double>(queries_global());
  size_ = std::sqrt(exact_sum(communicator_, sizes, queries_global()));
  queries_ = dense_rows(queries, 0, queries.rows_local());
}

RowMajorMatrix TokenAttention::chunk_of(const RowMajorMatrix& rows, std::span<const Index> keys, Index chunk) const {
  const Index first = chunk * kTokenChunk, count = std::min(kTokenChunk, static_cast<Index>(keys.size()) - first);
  RowMajorMatrix transposed(rows.cols(), count);
  for (Index k = 0; k < count; ++k) transposed.col(k) = rows.row(keys[static_cast<std::size_t>(first + k)]);
  return transposed;
}

void TokenAttention::visit(std::span<const Index> keys, const std::function<void(const Block&)>& use) const {
  const Index chunks = chunks_of(keys.size());
  std::vector<RowMajorMatrix> K;
  for (Index c = 0; c < chunks; ++c) K.push_back(chunk_of(keys_, keys, c));
  Block block;
  block.P.resize(static_cast<std::size_t>(chunks));
  const std::int64_t first_global = partition_.begin(communicator_.rank());
  const InWork work("attention weights", "queries", static_cast<double>(queries_.rows()));
  for (block.first = 0; block.first < queries_.rows() && !is_in_vain(); block.first += block.rows) {
    block.rows = std::min(kTokenQueries - static_cast<Index>((first_global + block.first) % kTokenQueries),
                          queries_.rows() - block.first);
#pragma omp parallel for schedule(dynamic)
    for (Index c = 0; c < chunks; ++c) {
      RowMajorMatrix& P = block.P[static_cast<std::size_t>(c)];
      P = thread_product(queries_.row(block.first).data(), block.rows, queries_.cols(), K[static_cast<std::size_t>(c)]);
      for (Index i = 0; i < block.rows; ++i) {
        P.row(i).array() = scale_ * P.row(i).array() - log_normaliser_[block.first + i];
        for (Index k = 0; visible_ && k < P.cols(); ++k)
          if (!visible_->sees(block.first + i, keys[static_cast<std::size_t>(c * kTokenChunk + k)]))
            P(i, k) = -std::numeric_limits<double>::infinity();
      }
      const auto all = span_of(P);
      kernels::exp(all, all);
    }
    use(block);
    InWork::add(block.rows);
  }
}

double TokenAttention::bound_of_sums() const {
  const double largest = values_.rowwise().squaredNorm().maxCoeff();
  return 2 * static_cast<double>(queries_global()) * (1 + 4 * largest + spread_);
}

KeySums TokenAttention::key_sums() const {
  const Index n = key_count();
  std::vector<Index> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), Index{0});
  const VectorXd squares = values_.rowwise().squaredNorm();
  std::vector<RowMajorMatrix> V;
  for (Index c = 0; c < chunks_of(all.size()); ++c) V.push_back(chunk_of(values_, all, c));
  ExactSum sums(3 * n, bound_of_sums(), queries_global());
  visit(all, [&](const Block& block) {
#pragma omp parallel for schedule(dynamic)
    for (Index c = 0; c < static_cast<Index>(V.size()); ++c) {
      const RowMajorMatrix& P = block.P[static_cast<std::size_t>(c)];
      const RowMajorMatrix inner =
          thread_product(output_.row(block.first).data(), block.rows, output_.cols(), V[static_cast<std::size_t>(c)]);
      Eigen::ArrayXXd part = Eigen::ArrayXXd::Zero(3, P.cols());
      for (Index i = 0; i < block.rows; ++i) {
        const double size = output_.row(block.first + i).squaredNorm();
        for (Index k = 0; k < P.cols(); ++k) {
          const double p = P(i, k), distance = squares[c * kTokenChunk + k] - 2 * inner(i, k) + size;
          part(0, k) += p;
          part(1, k) += p * p;
          part(2, k) += p * p * std::max(distance, 0.0);
        }
      }
      for (Index k = 0; k < P.cols(); ++k)
        for (Index s = 0; s < 3; ++s) sums.add(s * n + c * kTokenChunk + k, part(s, k));
    }
  });
  sums.reduce(communicator_);
  const VectorXd found = sums.values();
  return {found.head(n), found.segment(n, n), found.tail(n)};
}

std::vector<MatrixXd> TokenAttention::feature_grams(std::span<const Index> keys, bool all_pairs) const {
  const Index chunks = chunks_of(keys.size());
  std::vector<RowMajorMatrix> V;
  for (Index c = 0; c < chunks; ++c) V.push_back(chunk_of(values_, keys, c));
  std::vector<ChunkPair> pairs;
  Index size = 0;
  for (Index a = 0; a < chunks; ++a)
    for (Index b = all_pairs ? 0 : a; b <= a; ++b) {
      pairs.push_back({a, b, size});
      size += V[static_cast<std::size_t>(a)].cols() * V[static_cast<std::size_t>(b)].cols();
    }
  require_memory(communicator_, 40.0 * static_cast<double>(size),
                 "Gram matrices of " + std::to_string(keys.size()) + " keys");
  std::vector<RowMajorMatrix> inner;  // <v_j, v_l>
  for (const ChunkPair& pair : pairs)
    inner.push_back(V[static_cast<std::size_t>(pair.a)].transpose() * V[static_cast<std::size_t>(pair.b)]);
  ExactSum sums(size, bound_of_sums(), queries_global());
  std::vector<ChunkFeatures> features(static_cast<std::size_t>(chunks));
  visit(keys, [&](const Block& block) {
#pragma omp parallel
    {
#pragma omp for schedule(dynamic)
      for (Index c = 0; c < chunks; ++c) {
        const RowMajorMatrix& P = block.P[static_cast<std::size_t>(c)];
        ChunkFeatures& of = features[static_cast<std::size_t>(c)];
        of.transposed = P.transpose();
        of.W =
            thread_product(output_.row(block.first).data(), block.rows, output_.cols(), V[static_cast<std::size_t>(c)]);
        for (Index i = 0; i < block.rows; ++i) {
          const double half = (output_.row(block.first + i).squaredNorm() + spread_) / 2;
          of.W.row(i).array() = P.row(i).array() * (half - of.W.row(i).array());
        }
      }
#pragma omp for schedule(dynamic)
      for (Index task = 0; task < static_cast<Index>(pairs.size()); ++task) {
        const ChunkPair& pair = pairs[static_cast<std::size_t>(task)];
        const auto a = static_cast<std::size_t>(pair.a), b = static_cast<std::size_t>(pair.b);
        const RowMajorMatrix &left = features[a].transposed, &right = features[b].transposed;
        const RowMajorMatrix weights = thread_product(left.data(), left.rows(), block.rows, block.P[b]);
        const RowMajorMatrix one = thread_product(left.data(), left.rows(), block.rows, features[b].W);
        const RowMajorMatrix other =
            a == b ? one : thread_product(right.data(), right.rows(), block.rows, features[a].W);
        const RowMajorMatrix& products = inner[static_cast<std::size_t>(task)];
        for (Index x = 0; x < weights.rows(); ++x)
          for (Index y = 0; y < (a == b ? x + 1 : weights.cols()); ++y)
            sums.add(pair.first + x * weights.cols() + y, weights(x, y) * products(x, y) + one(x, y) + other(y, x));
      }
    }
  });
  sums.reduce(communicator_);
  const VectorXd found = sums.values();
  std::vector<MatrixXd> grams;
  for (std::size_t task = 0; task < pairs.size(); ++task) {
    const Index rows = inner[task].rows(), columns = inner[task].cols();
    grams.emplace_back(Eigen::Map<const RowMajorMatrix>(found.data() + pairs[task].first, rows, columns));
    if (pairs[task].a == pairs[task].b) mirror(grams.back());
  }
  return grams;
}

}  // namespace attnreg
