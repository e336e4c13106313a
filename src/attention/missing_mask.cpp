#include <algorithm>

#include "attnreg/attention_regression.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kDense = 0.5;  // share of numbers other than 0 above which a column of zeros is no accident

/// The numbers of B other than 0, of one sequence.
struct Nonzeros {
  VectorXd of_keys;    ///< in each column
  double later = 0;    ///< above the diagonal that ends at the last query and key
  bool square = true;  ///< or wide: a causal mask is possible, and hides something
};

template <class Matrix>
Nonzeros count_nonzeros(const AttentionSequence& sequence, const Matrix& B, int rank) {
  const std::int64_t n1 = sequence.partition.rows_global(), n2 = sequence.keys.rows();
  Nonzeros found{VectorXd::Zero(B.cols()), 0, n1 <= n2 && n1 > 1};
  for (Index j = 0; j < B.rows(); ++j)
    for (Index key = 0; key < B.cols(); ++key) {
      if (B(j, key) == 0) continue;
      found.of_keys[key] += 1;
      found.later += key > sequence.partition.begin(rank) + j + n2 - n1 ? 1 : 0;
    }
  return found;
}

struct Pattern {
  bool causal = false;
  Index columns = 0, first_column = 0;  ///< that are 0
};

Pattern pattern_of(const Nonzeros& found, double n1) {
  const auto n2 = static_cast<double>(found.of_keys.size());
  const double nonzeros = found.of_keys.sum();
  Pattern pattern{found.square && found.later == 0 && nonzeros > 0, 0, 0};
  double places = 0;  // where a number other than 0 could be
  for (Index key = found.of_keys.size(); key-- > 0;) {
    if (found.of_keys[key] == 0) {
      pattern.columns += 1;
      pattern.first_column = key;
    } else {
      places += pattern.causal ? std::min(n1, n2 - static_cast<double>(key)) : n1;
    }
  }
  if (nonzeros == 0 || nonzeros < kDense * places) pattern.columns = 0;
  return pattern;
}

std::string of_sequences(std::int64_t count, std::size_t all) {
  return std::to_string(count) + " of " + std::to_string(all) + (all == 1 ? " sequence" : " sequences");
}

}  // namespace

std::string missing_mask(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                         const std::vector<AttentionMatrix>& targets) {
  std::vector<Nonzeros> found;
  std::vector<std::size_t> numbers;
  std::vector<double> sums;
  for (std::size_t k = 0; k < sequences.size(); ++k) {
    if (sequences[k].mask || sequences[k].values) continue;
    const auto count = [&](const auto& B) { return count_nonzeros(sequences[k], B, communicator.rank()); };
    found.push_back(targets.empty() ? count(sequences[k].target) : std::visit(count, targets[k]));
    numbers.push_back(k);
    sums.insert(sums.end(), found.back().of_keys.begin(), found.back().of_keys.end());
    sums.push_back(found.back().later);
  }
  if (found.empty()) return "";
  communicator.sum(sums);
  std::int64_t causal = 0, padded = 0;
  std::string example;
  const double* next = sums.data();
  for (std::size_t k = 0; k < found.size(); ++k) {
    for (double& count : found[k].of_keys) count = *next++;
    found[k].later = *next++;
    const auto& sequence = sequences[numbers[k]];
    const Pattern pattern = pattern_of(found[k], static_cast<double>(sequence.partition.rows_global()));
    causal += pattern.causal ? 1 : 0;
    if (pattern.columns == 0) continue;
    if (padded++ == 0)
      example = "sequence " + std::to_string(numbers[k]) + ": " + std::to_string(pattern.columns) + " of " +
                std::to_string(sequence.keys.rows()) + " keys, the first is key " +
                std::to_string(pattern.first_column);
  }
  std::string text;
  if (causal > 0)
    text = "B is exactly 0 above the diagonal in " + of_sequences(causal, sequences.size()) +
           ", as if queries saw no later keys, but there is no mask and they are given attention: see --mask causal";
  if (padded > 0)
    text += (causal > 0 ? "; " : "") + std::string("whole columns of B are exactly 0 in ") +
            of_sequences(padded, sequences.size()) + " (" + example +
            ", counted from 0), as if these keys were padding, but there is no mask and they are given attention: see "
            "--mask FILE";
  return text;
}

}  // namespace attnreg
