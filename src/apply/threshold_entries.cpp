#include "apply/threshold_entries.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "apply/attention_kernel.hpp"
#include "errors/printable.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

namespace {

constexpr double kUnseen = -std::numeric_limits<double>::infinity();  // in place of a logit

struct MarkedKey {
  double logit;
  std::int32_t key;
};

/// Of equal logits the lower key is the better one. A heap with it has the worst key in front.
bool is_better(const MarkedKey& a, const MarkedKey& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.key < b.key);
}

/// The marked keys of the queries of one rank, and sums over the others; exponentials relative to e^{reference_i}.
class MarkedKeys {
 public:
  MarkedKeys(Index rows, const ThresholdOptions& options)
      : options_(options),
        marked_(static_cast<std::size_t>(rows)),
        finite_(static_cast<std::size_t>(rows), 1),
        rest_(static_cast<std::size_t>(rows), 0),
        reference_(VectorXd::Constant(rows, kUnseen)),
        rest_sum_(VectorXd::Zero(rows)),
        rest_logits_(rest_sum_) {}

  /// So many will be marked for a query. Throws where memory is short, on this rank.
  void reserve(Index query, std::int64_t count) {
    marked_[static_cast<std::size_t>(query)].reserve(static_cast<std::size_t>(count));
  }

  /// Adds a block of products q . k, which is overwritten.
  void add(const AttentionBlock& block, const std::optional<VisibleKeys>& visible) {
    RowMajorMatrix& products = block.products;
    products *= options_.scale;
    block.fill_hidden(visible, 0);
    for (Index i = 0; i < products.rows(); ++i)
      if (!products.row(i).allFinite()) {
        finite_[static_cast<std::size_t>(block.first_query + i)] = 0;
        products.row(i).setZero();
      }
    block.fill_hidden(visible, kUnseen);
    for (Index i = 0; i < products.rows(); ++i) add_row(block.first_query + i, products.row(i), block.first_key);
    const auto all = span_of(products);
    kernels::exp(all, all);
    rest_sum_.segment(block.first_query, products.rows()) += products.rowwise().sum();
  }

  /// Throws on this rank.
  void require_weights(std::int64_t first_query) const {
    for (std::size_t i = 0; i < finite_.size(); ++i)
      require_weight(first_query + static_cast<std::int64_t>(i), finite_[i] != 0, !marked_[i].empty(), options_);
  }

  /// All but the output.
  ThresholdAttention result(Index keys) {
    ThresholdAttention result;
    result.entries.columns = keys;
    result.rank_one.resize(reference_.size());
    for (std::size_t i = 0; i < marked_.size(); ++i) {
      auto& row = marked_[i];
      std::ranges::sort(row, {}, &MarkedKey::key);
      const auto query = static_cast<Index>(i);
      const double background = this->background(query);
      double normaliser = background * static_cast<double>(rest_[i]);
      for (MarkedKey& key : row) normaliser += key.logit = std::exp(key.logit - reference_[query]);
      for (const MarkedKey& key : row) {
        result.entries.indices.push_back(key.key);
        result.entries.values.push_back((key.logit - background) / normaliser);
      }
      result.entries.offsets.push_back(std::ssize(result.entries.indices));
      result.rank_one[query] = background / normaliser;
      result.marked.push_back(std::ssize(row));
      result.visible.push_back(std::ssize(row) + rest_[i]);
      row = {};
    }
    return result;
  }

 private:
  /// Leaves z - reference in the row for keys that are seen and not marked, and for the others what has no exponential.
  template <class Row>
  void add_row(Index query, Row&& row, std::int64_t first_key) {
    const double larger = std::max(reference_[query], row.maxCoeff());
    if (larger == kUnseen) return;
    rest_sum_[query] *= std::exp(reference_[query] - larger);
    reference_[query] = larger;
    for (Index k = 0; k < row.size(); ++k) {
      if (row[k] == kUnseen) continue;
      const MarkedKey key{row[k], static_cast<std::int32_t>(first_key + k)};
      if (takes(query, key)) {
        row[k] = kUnseen;
        continue;
      }
      add_rest(query, key.logit);
      row[k] -= larger;
    }
  }

  /// Whether the key is marked, as far as is known now. One that is no longer counts as one of the others.
  bool takes(Index query, const MarkedKey& key) {
    auto& row = marked_[static_cast<std::size_t>(query)];
    if (options_.top == 0) {
      if (key.logit < options_.tau) return false;
      row.push_back(key);
      return true;
    }
    if (std::ssize(row) == options_.top) {
      if (!is_better(key, row.front())) return false;
      std::ranges::pop_heap(row, is_better);
      add_rest(query, row.back().logit);
      rest_sum_[query] += std::exp(row.back().logit - reference_[query]);
      row.pop_back();
    }
    row.push_back(key);
    std::ranges::push_heap(row, is_better);
    return true;
  }

  void add_rest(Index query, double logit) {
    rest_logits_[query] += logit;
    ++rest_[static_cast<std::size_t>(query)];
  }

  double background(Index query) const {
    return background_of({rest_[static_cast<std::size_t>(query)], rest_sum_[query], rest_logits_[query]},
                         reference_[query], options_.background);
  }

  const ThresholdOptions& options_;
  std::vector<std::vector<MarkedKey>> marked_;
  std::vector<char> finite_;
  std::vector<std::int64_t> rest_;
  VectorXd reference_, rest_sum_, rest_logits_;
};

/// Collective, one scan. How many keys of each query of this rank have a logit of at least tau.
std::vector<std::int64_t> marked_counts(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                        const ThresholdOptions& options, const std::optional<VisibleKeys>& visible) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(queries.rows_local()), 0);
  visit_attention_blocks(queries, keys, values, [&](const AttentionBlock& block) {
    block.products *= options.scale;
    block.fill_hidden(visible, kUnseen);
    for (Index i = 0; i < block.products.rows(); ++i)
      counts[static_cast<std::size_t>(block.first_query + i)] +=
          (block.products.row(i).array() >= options.tau && block.products.row(i).array() != kUnseen).count();
  });
  return counts;
}

/// Collective. Adds the values: (entries + rank_one 1^T) V, the ones at the keys that a query sees.
void add_values(const RowMatrix& values, const std::optional<VisibleKeys>& visible, ThresholdAttention& result) {
  const Index rows = result.rank_one.size();
  std::vector<std::int64_t> next(result.entries.offsets.begin(), result.entries.offsets.end());
  Eigen::RowVectorXd sum = Eigen::RowVectorXd::Zero(values.columns());
  const InWork work("values", "keys", static_cast<double>(values.rows_global()));
  for (std::int64_t first = 0; first < values.rows_global(); first += kKeyBlockRows) {
    const auto count = static_cast<Index>(std::min<std::int64_t>(kKeyBlockRows, values.rows_global() - first));
    const RowMajorMatrix V = shared_rows(values, first, count);
    sum += V.colwise().sum();
#pragma omp parallel for schedule(dynamic, 64)
    for (Index i = 0; i < rows; ++i) {
      const auto row = static_cast<std::size_t>(i);
      auto& at = next[row];
      for (; at < result.entries.offsets[row + 1]; ++at) {
        const auto place = static_cast<std::size_t>(at);
        const std::int64_t key = result.entries.indices[place] - first;
        if (key >= count) break;
        result.output.row(i) += result.entries.values[place] * V.row(static_cast<Index>(key));
      }
      for (Index k = 0; visible && result.rank_one[i] != 0 && k < count; ++k)
        if (visible->sees(i, first + k)) result.output.row(i) += result.rank_one[i] * V.row(k);
    }
    InWork::add(count);
  }
  if (!visible) result.output += result.rank_one * sum;
}

}  // namespace

void require_weight(std::int64_t query, bool is_finite, bool is_marked, const ThresholdOptions& options) {
  const std::string name = "query " + std::to_string(query) + " (counted from 0)";
  if (!is_finite) throw NotFinite(name + ": an inner product with a key overflows; scale the queries or the keys");
  if (options.background == ThresholdOptions::Background::zero && !is_marked)
    throw InvalidArgument(name + " has no logit of at least tau = " + text_of(options.tau) +
                          ", and nothing remains without a background");
}

double background_of(const OtherKeys& others, double reference, ThresholdOptions::Background background) {
  const auto count = static_cast<double>(others.count);
  if (others.count == 0 || background == ThresholdOptions::Background::zero) return 0;
  if (background == ThresholdOptions::Background::row_mean) return others.sum / count;
  return std::exp(others.logits / count - reference);
}

ThresholdAttention threshold_with_entries(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                          const ThresholdOptions& options, const AttentionMask* mask) {
  const Communicator& communicator = queries.communicator();
  const auto visible = visible_keys(queries, keys, mask);
  const auto n = static_cast<Index>(keys.rows_global());
  std::vector<std::int64_t> counts(static_cast<std::size_t>(queries.rows_local()),
                                   std::min<std::int64_t>(options.top, n));
  if (options.top == 0) counts = marked_counts(queries, keys, values, options, visible);
  double all = 0;
  for (const std::int64_t count : counts) all += static_cast<double>(count);
  require_memory(
      communicator,
      2 * 16 * all + 8 * static_cast<double>(queries.rows_local()) * (4.0 + static_cast<double>(values.columns())),
      "the entries that are exact");
  MarkedKeys marked(queries.rows_local(), options);
  communicator.agree([&] {
    for (std::size_t i = 0; i < counts.size(); ++i) marked.reserve(static_cast<Index>(i), counts[i]);
  });
  visit_attention_blocks(queries, keys, values, [&](const AttentionBlock& block) { marked.add(block, visible); });
  communicator.agree([&] { marked.require_weights(queries.first_row()); });
  ThresholdAttention result = marked.result(n);
  result.output = RowMajorMatrix::Zero(queries.rows_local(), values.columns());
  add_values(values, visible, result);
  communicator.agree([&] { require_finite_output(queries.first_row(), result.output); });
  return result;
}

}  // namespace attnreg
