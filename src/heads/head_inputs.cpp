#include "heads/head_inputs.hpp"

#include <algorithm>
#include <numeric>

#include "algebra/blas_products.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/input_file.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kConstant = 1e-9;  // squared, of A1 u = 1

/// Whether some head has a target for the key that the query sees.
bool has_target(const HeadRows& rows, const std::vector<HeadTargets>& heads, Index row, Index key) {
  if (rows.visible && !rows.visible->sees(row, key)) return false;
  return heads.empty() ||
         std::ranges::any_of(heads, [&](const HeadTargets& head) { return head[rows.index](row, key) > kMissing; });
}

bool is_complete(const HeadRows& rows, const std::vector<HeadTargets>& heads) {
  if (rows.visible) return false;
  return std::ranges::all_of(heads, [&](const HeadTargets& head) {
    return head[rows.index].with([&](const auto& B) {
      return std::ranges::all_of(rows.rows, [&](Index row) { return B.row(row).minCoeff() > kMissing; });
    });
  });
}

}  // namespace

KeyFlags HeadRows::visible_keys(Index first, Index count) const {
  if (!visible) return {};
  KeyFlags flags(key_count(), count);
  for (Index j = 0; j < count; ++j)
    for (Index k = 0; k < flags.rows(); ++k) flags(k, j) = sees(first + j, k) ? 1 : 0;
  return flags.all() ? KeyFlags() : flags;
}

HeadTargets targets_of(const std::vector<AttentionSequence>& sequences, const std::vector<AttentionMatrix>& head) {
  HeadTargets targets(head.begin(), head.end());
  if (head.empty())
    for (const auto& sequence : sequences) targets.emplace_back(sequence.target);
  return targets;
}

void check_targets(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                   const std::vector<HeadTargets>& heads) {
  require(std::ranges::all_of(heads, [&](const auto& head) { return head.size() == sequences.size(); }),
          "every head needs a target for each of the " + std::to_string(sequences.size()) + " sequences");
  communicator.agree([&] {
    for (std::size_t h = 0; h < heads.size(); ++h)
      for (std::size_t k = 0; k < sequences.size(); ++k) {
        const TargetMatrix B = heads[h][k];
        const Index rows = sequences[k].queries.rows(), keys = sequences[k].keys.rows();
        const std::string place = "sequence " + std::to_string(k) + ", head " + std::to_string(h) + ": B ";
        if (B.rows() != rows || B.cols() != keys)
          throw InvalidArgument(place + "is " + std::to_string(B.rows()) + " x " + std::to_string(B.cols()) +
                                " on this rank, expected " + std::to_string(rows) + " x " + std::to_string(keys));
        Index i = 0, j = 0;  // of the least number
        const auto [finite, least] = B.with([&](const auto& matrix) {
          return std::pair(find_non_finite(span_of(matrix)).count == 0,
                           matrix.size() > 0 ? double{matrix.minCoeff(&i, &j)} : 0);
        });
        if (!finite) throw InvalidArgument(place + "has numbers that are not finite");
        if (least < 0)
          throw InvalidArgument(place + "has a negative number, " + text_of(least) + ", at row " +
                                std::to_string(sequences[k].partition.begin(communicator.rank()) + i) + ", column " +
                                std::to_string(j) + " (counted from 0); attention has none");
        if (sequences[k].weights || sequences[k].values)
          throw InvalidArgument("sequence " + std::to_string(k) + ": heads are recovered without values and weights");
      }
  });
}

MatrixXd summed_gram(const Communicator& communicator, MatrixXd lower) {
  mirror(lower);
  communicator.sum(span_of(lower));
  return lower;
}

HeadInputs::HeadInputs(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                       const std::vector<HeadTargets>& heads, const Selection& selection)
    : communicator_(communicator) {
  communicator_.agree([&] { select(sequences, selection); });
  const bool complete = std::ranges::all_of(rows_, [&](const HeadRows& rows) { return is_complete(rows, heads); });
  is_whole_ = communicator_.min(std::int64_t{complete}) != 0;
  if (!is_whole_) trim(sequences, heads);
  stack(sequences);
  MatrixXd G = MatrixXd::Zero(A_.rows(), A_.rows()), H = MatrixXd::Zero(K_.rows(), K_.rows());
  add_gram_of_rows(A_, G);
  for (const auto& rows : rows_) add_gram_of_rows(shared_keys_of(rows), H);
  queries_ = whitening(communicator_, summed_gram(communicator_, std::move(G)));
  keys_ = whitening(communicator_, summed_gram(communicator_, std::move(H)));
  require(queries_.dimension() > 0 && keys_.dimension() > 0,
          "the queries, or the keys less their mean over each sequence, are all 0 or overflow: nothing can be learnt "
          "from them");
  // The best u has A1 u = 1 up to |1|^2 - |W^T A1^T 1|^2.
  VectorXd sums = A_.rowwise().sum();
  communicator_.sum(span_of(sums));
  const double n = static_cast<double>(queries_global_), left = n - (queries_.W.transpose() * sums).squaredNorm();
  has_query_constant_ = std::abs(left) <= kConstant * n;
}

const HeadInputs::Floats& HeadInputs::floats() const {
  if (!floats_) {
    const auto fits = [](const Whitening& metric) {
      const double square = metric.gram.diagonal().maxCoeff();
      return square > 1e-20 && square < 1e20;
    };
    floats_.emplace();
    if (fits(queries_) && fits(keys_)) *floats_ = {A_.cast<float>(), K_.cast<float>()};
  }
  return *floats_;
}

void HeadInputs::select(const std::vector<AttentionSequence>& sequences, const Selection& selection) {
  const int rank = communicator_.rank();
  for (std::size_t k = 0; k < sequences.size(); ++k) {
    const auto& sequence = sequences[k];
    HeadRows rows;
    rows.index = k;
    rows.rows_global = sequence.partition.rows_global();
    for (Index row = 0; row < sequence.queries.rows(); ++row)
      if (!selection || selection(k, sequence.partition.begin(rank) + row)) rows.rows.push_back(row);
    if (rows.rows.empty()) continue;
    rows.keys.resize(static_cast<std::size_t>(sequence.keys.rows()));
    std::iota(rows.keys.begin(), rows.keys.end(), 0);
    if (sequence.mask) rows.visible.emplace(*sequence.mask, sequence.partition, rank, sequence.keys.rows());
    rows_.push_back(std::move(rows));
  }
}

void HeadInputs::trim(const std::vector<AttentionSequence>& sequences, const std::vector<HeadTargets>& heads) {
  std::vector<Index> first{0};
  for (const auto& sequence : sequences) first.push_back(first.back() + sequence.keys.rows());
  VectorXd seen = VectorXd::Zero(first.back());
  for (auto& rows : rows_) {
    auto counts = seen.segment(first[rows.index], rows.key_count());
    std::erase_if(rows.rows, [&](Index row) {
      bool any = false;
      for (Index key = 0; key < counts.size(); ++key)
        if (has_target(rows, heads, row, key)) any = true, counts[key] = 1;
      return !any;
    });
  }
  communicator_.sum(span_of(seen));
  std::erase_if(rows_, [](const HeadRows& rows) { return rows.rows.empty(); });
  for (auto& rows : rows_) std::erase_if(rows.keys, [&](Index key) { return seen[first[rows.index] + key] == 0; });
}

void HeadInputs::stack(const std::vector<AttentionSequence>& sequences) {
  const int rank = communicator_.rank();
  Index queries = 0, keys = 0;
  for (auto& rows : rows_) {
    rows.first_query = queries;
    rows.first_key = keys;
    queries += rows.queries();
    keys += rows.key_count();
  }
  A_.resize(sequences[0].queries.cols(), queries);
  K_.resize(sequences[0].keys.cols(), keys);
  VectorXd owned = VectorXd::Zero(static_cast<Index>(sequences.size()) + 1);
  for (auto& rows : rows_) owned[static_cast<Index>(rows.index)] = static_cast<double>(rows.queries());
  VectorXd before = owned;
  owned[owned.size() - 1] = static_cast<double>(queries);
  // How many queries of each sequence lower ranks have: who counts which keys follows from it.
  const auto all =
      communicator_.all_gather(std::span<const double>(before.data(), static_cast<std::size_t>(before.size())));
  communicator_.sum(span_of(owned));
  before.setZero();
  for (Index of = 0; of < rank; ++of)
    before += Eigen::Map<const VectorXd>(all.data() + of * before.size(), before.size());
  queries_global_ = static_cast<std::int64_t>(owned[owned.size() - 1]);
  sequences_ = (owned.head(owned.size() - 1).array() > 0).count();
  for (auto& rows : rows_) {
    const auto& sequence = sequences[rows.index];
    for (Index k = 0; k < rows.queries(); ++k) {
      const Index row = rows.rows[static_cast<std::size_t>(k)];
      rows.global_rows.push_back(sequence.partition.begin(rank) + row);
      A_.col(rows.first_query + k) = sequence.queries.row(row).transpose();
    }
    for (Index k = 0; k < rows.key_count(); ++k)
      K_.col(rows.first_key + k) = sequence.keys.row(rows.keys[static_cast<std::size_t>(k)]).transpose();
    auto own = K_.middleCols(rows.first_key, rows.key_count());
    own.colwise() -= VectorXd(own.rowwise().mean());
    const auto part = [&](double number) {
      return static_cast<Index>(number / owned[static_cast<Index>(rows.index)] * static_cast<double>(rows.key_count()));
    };
    const double first = before[static_cast<Index>(rows.index)];
    rows.share_begin = part(first);
    rows.share_end = part(first + static_cast<double>(rows.queries()));
  }
}

}  // namespace attnreg
