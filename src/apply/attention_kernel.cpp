#include "apply/attention_kernel.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

namespace {

using Kind = AttentionKernel::Kind;
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

void check(const AttentionKernel& kernel) {
  if (!(kernel.scale > 0) || !std::isfinite(kernel.scale)) refuse("the scale of the logits must be a number > 0");
  if (kernel.kind == Kind::polynomial && kernel.degree < 1)
    refuse("the degree of the polynomial is " + std::to_string(kernel.degree) + ", expected at least 1");
}

/// A logit that the kernel cannot take; column -1: a query without any weight.
struct BadLogit {
  Index row;
  std::int64_t column;
  double value;
};

std::string message(const AttentionKernel& kernel, std::int64_t query, const BadLogit& bad) {
  if (bad.column < 0)
    return "query " + std::to_string(query) + " (counted from 0): all its logits are 0, so that z^" +
           std::to_string(kernel.degree) + " cannot be normalised";
  const std::string place = "logit of query " + std::to_string(query) + " and key " + std::to_string(bad.column) +
                            " (counted from 0) is " + text_of(bad.value);
  if (!std::isfinite(bad.value)) return place + ": the inner product overflows; scale the queries or the keys";
  return place + ", but z^" + std::to_string(kernel.degree) +
         " of odd degree takes no negative logits; choose an even degree";
}

/// Throws on this rank.
[[noreturn]] void refuse_logit(const AttentionKernel& kernel, std::int64_t query, const BadLogit& bad) {
  const std::string text = message(kernel, query, bad);
  if (!std::isfinite(bad.value)) throw NotFinite(text);
  throw InvalidArgument(text);
}

/// Replaces inner products by ln g(scale s). Entries after a bad one may be left as they were.
std::optional<BadLogit> take_log_weights(const AttentionKernel& kernel, std::int64_t first_key,
                                         RowMajorMatrix& products) {
  products *= kernel.scale;
  const bool only_positive = kernel.kind == Kind::polynomial && kernel.degree % 2 != 0;
  for (Index i = 0; i < products.rows(); ++i)
    for (Index j = 0; j < products.cols(); ++j) {
      const double z = products(i, j);
      if (!std::isfinite(z) || (only_positive && z < 0)) return BadLogit{i, first_key + j, z};
    }
  if (kernel.kind == Kind::polynomial) products = static_cast<double>(kernel.degree) * products.array().abs().log();
  return std::nullopt;
}

void exp_in_place(RowMajorMatrix& matrix) {
  const auto all = span_of(matrix);
  kernels::exp(all, all);
}

/// The running sums of the queries of one rank, all relative to e^{reference_i}.
struct RunningRows {
  Eigen::VectorXd reference;   ///< largest ln g so far
  Eigen::VectorXd normaliser;  ///< sum g
  RowMajorMatrix output;       ///< sum g v^T

  RunningRows(Index rows, Index columns)
      : reference(Eigen::VectorXd::Constant(rows, kMinusInfinity)),
        normaliser(Eigen::VectorXd::Zero(rows)),
        output(RowMajorMatrix::Zero(rows, columns)) {}

  void add(Index first, RowMajorMatrix& log_weights, const RowMajorMatrix& values) {
    for (Index i = 0; i < log_weights.rows(); ++i) {
      double& largest = reference[first + i];
      const double larger = std::max(largest, log_weights.row(i).maxCoeff());
      if (larger == kMinusInfinity) {
        log_weights.row(i).setConstant(kMinusInfinity);
        continue;
      }
      const double factor = std::exp(largest - larger);
      normaliser[first + i] *= factor;
      output.row(first + i) *= factor;
      log_weights.row(i).array() -= larger;
      largest = larger;
    }
    exp_in_place(log_weights);
    normaliser.segment(first, log_weights.rows()) += log_weights.rowwise().sum();
    add_weighted_values(log_weights, values, first, output);
  }
};

/// Throws for the first bad query of this rank.
void require_weights(const AttentionKernel& kernel, std::int64_t first_query,
                     const std::vector<std::optional<BadLogit>>& bad, const Eigen::VectorXd& normaliser) {
  for (const auto& logit : bad)
    if (logit) refuse_logit(kernel, first_query + logit->row, *logit);
  for (Index i = 0; i < normaliser.size(); ++i)
    if (normaliser[i] == 0) throw InvalidArgument(message(kernel, first_query + i, {i, -1, 0}));
}

}  // namespace

void require_finite_output(std::int64_t first_query, const RowMajorMatrix& output) {
  for (Index i = 0; i < output.rows(); ++i)
    if (!output.row(i).allFinite())
      throw NotFinite("query " + std::to_string(first_query + i) +
                      " (counted from 0): its output is not finite, as a sum of values overflows; scale the values");
}

AttentionOutput apply_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                const AttentionKernel& kernel, const AttentionMask* mask) {
  check(kernel);
  check_attention_shapes(queries, keys, &values);
  const auto visible = visible_keys(queries, keys, mask);
  RunningRows running(queries.rows_local(), values.columns());
  std::vector<std::optional<BadLogit>> bad(static_cast<std::size_t>(queries.rows_local() / kQueryBlockRows + 1));
  visit_attention_blocks(queries, keys, values, [&](const AttentionBlock& block) {
    auto& found = bad[static_cast<std::size_t>(block.first_query / kQueryBlockRows)];
    if (found) return;
    block.fill_hidden(visible, 0);  // whatever they are, these are no bad logits
    found = take_log_weights(kernel, block.first_key, block.products);
    if (found) {
      found->row += block.first_query;
      return;
    }
    block.fill_hidden(visible, kMinusInfinity);
    running.add(block.first_query, block.products, block.values);
  });
  queries.communicator().agree([&] { require_weights(kernel, queries.first_row(), bad, running.normaliser); });

  AttentionOutput result{std::move(running.output), running.reference.array() + running.normaliser.array().log()};
  result.output = running.normaliser.cwiseInverse().asDiagonal() * result.output;
  queries.communicator().agree([&] { require_finite_output(queries.first_row(), result.output); });
  return result;
}

AttentionRows::AttentionRows(const RowMatrix& queries, const RowMatrix& keys, const AttentionKernel& kernel)
    : queries_(queries), kernel_(kernel) {
  check(kernel);
  check_attention_shapes(queries, keys, nullptr);
  keys_ = shared_rows(keys, 0, static_cast<Index>(keys.rows_global()));
}

RowMajorMatrix AttentionRows::rows(Index first_local, Index count) const {
  RowMajorMatrix P = dense_rows(queries_, first_local, count) * keys_.transpose();
  normalise_attention(kernel_, queries_.first_row() + first_local, P);
  return P;
}

void normalise_attention(const AttentionKernel& kernel, std::int64_t first_row, RowMajorMatrix& products) {
  const auto bad = take_log_weights(kernel, 0, products);
  if (bad) refuse_logit(kernel, first_row + bad->row, *bad);
  for (Index i = 0; i < products.rows(); ++i) {
    const double largest = products.row(i).maxCoeff();
    if (largest == kMinusInfinity) throw InvalidArgument(message(kernel, first_row + i, {i, -1, 0}));
    products.row(i).array() -= largest;
  }
  exp_in_place(products);
  const Eigen::VectorXd shares = products.rowwise().sum().cwiseInverse();
  products = shares.asDiagonal() * products;
}

void check_attention_shapes(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix* values) {
  if (queries.columns() != keys.columns())
    refuse("the queries have " + std::to_string(queries.columns()) + " columns and the keys " +
           std::to_string(keys.columns()) + "; inner products need as many");
  if (values != nullptr && values->rows_global() != keys.rows_global())
    refuse("there are " + std::to_string(keys.rows_global()) + " keys and " + std::to_string(values->rows_global()) +
           " values; each key needs one");
}

std::optional<VisibleKeys> visible_keys(const RowMatrix& queries, const RowMatrix& keys, const AttentionMask* mask) {
  std::optional<VisibleKeys> visible;
  const Communicator& communicator = queries.communicator();
  if (mask != nullptr)
    communicator.agree([&] { visible.emplace(*mask, queries.partition(), communicator.rank(), keys.rows_global()); });
  return visible;
}

void add_weighted_values(const RowMajorMatrix& W, const RowMajorMatrix& V, Index first_row, RowMajorMatrix& out) {
  kernels::add_matrix_product(W.data(), W.rows(), W.cols(), V.data(), V.cols(), false, out.row(first_row).data());
}

void visit_attention_blocks(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                            const std::function<void(const AttentionBlock&)>& add) {
  const RowMajorMatrix Q = dense_rows(queries, 0, queries.rows_local());
  const Index query_blocks = (Q.rows() + kQueryBlockRows - 1) / kQueryBlockRows;
  std::vector<RowMajorMatrix> products(static_cast<std::size_t>(omp_get_max_threads()));
  const InWork blocks("attention", "keys", static_cast<double>(keys.rows_global()));
  for (std::int64_t first = 0; first < keys.rows_global(); first += kKeyBlockRows) {
    const auto count = static_cast<Index>(std::min<std::int64_t>(kKeyBlockRows, keys.rows_global() - first));
    const RowMajorMatrix K = shared_rows(keys, first, count).transpose(), V = shared_rows(values, first, count);
#pragma omp parallel for schedule(static)
    for (Index block = 0; block < query_blocks; ++block) {
      const Index begin = block * kQueryBlockRows, rows = std::min(kQueryBlockRows, Q.rows() - begin);
      RowMajorMatrix& S = products[static_cast<std::size_t>(omp_get_thread_num())];
      S.setZero(rows, count);
      kernels::add_matrix_product(Q.row(begin).data(), rows, Q.cols(), K.data(), count, false, S.data());
      add({begin, S, V, first});
    }
    InWork::add(count);
  }
}

}  // namespace attnreg
