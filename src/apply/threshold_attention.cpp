#include "attnreg/apply_attention.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "apply/attention_kernel.hpp"
#include "apply/threshold_entries.hpp"
#include "errors/refuse.hpp"
#include "numbers/random.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Background = ThresholdOptions::Background;
constexpr double kHidden = -std::numeric_limits<double>::infinity();  // in place of a logit

void check(const ThresholdOptions& options) {
  if (!(options.scale > 0) || !std::isfinite(options.scale)) refuse("the scale of the logits must be a number > 0");
  if (std::isnan(options.tau)) refuse("tau is NaN");
  if (options.top < 0) refuse(std::to_string(options.top) + " largest logits: give at least 1");
}

/// The sums of the queries of one rank; exponentials relative to e^{reference_i}.
class RunningSums {
 public:
  RunningSums(Index rows, Index columns, const ThresholdOptions& options)
      : options_(options),
        reference_(Eigen::VectorXd::Constant(rows, -std::numeric_limits<double>::infinity())),
        marked_sum_(Eigen::VectorXd::Zero(rows)),
        rest_sum_(marked_sum_),
        rest_logits_(marked_sum_),
        marked_(static_cast<std::size_t>(rows), 0),
        rest_(marked_),
        finite_(static_cast<std::size_t>(rows), 1),
        marked_values_(RowMajorMatrix::Zero(rows, columns)),
        rest_values_(marked_values_) {}

  /// Adds a block of products q . k, which is overwritten.
  void add(const AttentionBlock& block, const std::optional<VisibleKeys>& visible) {
    const Index first = block.first_query;
    RowMajorMatrix& products = block.products;
    products *= options_.scale;
    block.fill_hidden(visible, 0);
    for (Index i = 0; i < products.rows(); ++i) check_row(first + i, products.row(i));
    block.fill_hidden(visible, kHidden);
    RowMajorMatrix rest(products.rows(), products.cols());  // 1 for the keys that are seen and not marked
    for (Index i = 0; i < products.rows(); ++i) shift_row(first + i, products.row(i), rest.row(i));
    const auto all = span_of(products);
    kernels::exp(all, all);
    rest_sum_.segment(first, products.rows()) += products.cwiseProduct(rest).rowwise().sum();
    products.array() *= 1 - rest.array();
    marked_sum_.segment(first, products.rows()) += products.rowwise().sum();
    add_weighted_values(products, block.values, first, marked_values_);
    add_weighted_values(rest, block.values, first, rest_values_);
  }

  /// Throws on this rank.
  void require_weights(std::int64_t first_query) const {
    for (std::size_t i = 0; i < finite_.size(); ++i)
      require_weight(first_query + static_cast<std::int64_t>(i), finite_[i] != 0, marked_[i] != 0, options_);
  }

  ThresholdAttention result() const {
    RowMajorMatrix output = marked_values_;
    for (Index i = 0; i < output.rows(); ++i) {
      const double background = this->background(i);
      const auto others = static_cast<double>(rest_[static_cast<std::size_t>(i)]);
      output.row(i) += background * rest_values_.row(i);
      output.row(i) /= marked_sum_[i] + background * others;
    }
    std::vector<std::int64_t> visible = rest_;
    for (std::size_t i = 0; i < visible.size(); ++i) visible[i] += marked_[i];
    return {std::move(output), marked_, std::move(visible), {}, {}};
  }

 private:
  template <class Row>
  void check_row(Index query, Row&& row) {
    if (row.array().isFinite().all()) return;
    finite_[static_cast<std::size_t>(query)] = 0;
    row.setZero();
  }

  /// Moves the reference of one query to its largest logit so far, counts, and leaves z - reference in `row`; of hidden
  /// keys `kHidden`, whose exponential is 0.
  template <class Row, class Rest>
  void shift_row(Index query, Row&& row, Rest&& rest) {
    rest = (row.array() < options_.tau && row.array() != kHidden).template cast<double>();
    const auto others = static_cast<std::int64_t>(rest.sum());
    rest_[static_cast<std::size_t>(query)] += others;
    marked_[static_cast<std::size_t>(query)] += (row.array() != kHidden).count() - others;
    rest_logits_[query] += (rest.array() > 0).select(row, 0).sum();
    const double larger = std::max(reference_[query], row.maxCoeff());
    if (larger == kHidden) return;
    const double factor = std::exp(reference_[query] - larger);
    reference_[query] = larger;
    marked_sum_[query] *= factor;
    rest_sum_[query] *= factor;
    marked_values_.row(query) *= factor;
    row.array() -= larger;
  }

  double background(Index query) const {
    return background_of({rest_[static_cast<std::size_t>(query)], rest_sum_[query], rest_logits_[query]},
                         reference_[query], options_.background);
  }

  const ThresholdOptions& options_;
  Eigen::VectorXd reference_, marked_sum_, rest_sum_, rest_logits_;
  std::vector<std::int64_t> marked_, rest_;
  std::vector<char> finite_;
  RowMajorMatrix marked_values_;  ///< sum e^z v^T over the marked keys
  RowMajorMatrix rest_values_;    ///< sum v^T over the others
};

}  // namespace

ThresholdAttention threshold_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                       const ThresholdOptions& options, const AttentionMask* mask) {
  check(options);
  check_attention_shapes(queries, keys, &values);
  if (options.top > 0 || options.keep_entries) return threshold_with_entries(queries, keys, values, options, mask);
  const auto visible = visible_keys(queries, keys, mask);
  RunningSums sums(queries.rows_local(), values.columns(), options);
  visit_attention_blocks(queries, keys, values, [&](const AttentionBlock& block) { sums.add(block, visible); });
  queries.communicator().agree([&] { sums.require_weights(queries.first_row()); });
  ThresholdAttention result = sums.result();
  queries.communicator().agree([&] { require_finite_output(queries.first_row(), result.output); });
  return result;
}

std::int64_t simulated_grover_queries(std::int64_t items, std::int64_t marked, std::uint64_t seed, std::int64_t query) {
  if (items < 1 || marked < 0 || marked > items)
    throw InvalidArgument(std::to_string(marked) + " marked of " + std::to_string(items) + " items");
  const RandomStream random(seed, Purpose::grover_search);
  const auto N = static_cast<double>(items);
  std::uint32_t draw = 0;
  std::int64_t queries = 0;
  for (std::int64_t left = marked; left > 0; --left) {
    const double theta = std::asin(std::sqrt(static_cast<double>(left) / N));
    for (double M = 1;; M = std::min(1.2 * M, std::sqrt(N))) {
      const double j = std::floor(random.uniform(query, draw++) * std::ceil(M));
      queries += static_cast<std::int64_t>(j) + 1;
      const double amplitude = std::sin((2 * j + 1) * theta);
      if (random.uniform(query, draw++) < amplitude * amplitude) break;
    }
  }
  return queries;
}

}  // namespace attnreg
