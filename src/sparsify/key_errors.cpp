#include "sparsify/key_errors.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "kernels/gram_kernels.hpp"
#include "numbers/exact_sum.hpp"
#include "numbers/random.hpp"
#include "numbers/vector_math.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr Index kNumbersAtOnce = Index{1} << 20;  // of logits of a thread, 8 MiB
constexpr int kHashBits = 7;                      // of HyperAttention's implementation

std::vector<Index> numbers_below(Index count) {
  std::vector<Index> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), Index{0});
  return numbers;
}

EstimatedOutputs no_outputs(const TokenAttention& on) {
  const Index rows = on.queries().rows();
  return {RowMajorMatrix::Zero(rows, on.values().cols()), VectorXd::Constant(rows, kNothing)};
}

EstimatedOutputs outputs_of(const TokenAttention& on, const FactoredKeys& of) {
  EstimatedOutputs outputs = no_outputs(on);
  estimate_outputs(on, of, numbers_below(on.queries().rows()), true, outputs);
  return outputs;
}

EstimatedOutputs outputs_of(const TokenAttention& on, const KeptKeys& kept) {
  return outputs_of(on, FactoredKeys{kept.keys, kept.weights, kept.weights});
}

/// The mean of the values that each query sees.
EstimatedOutputs mean_outputs(const TokenAttention& on) {
  EstimatedOutputs outputs = no_outputs(on);
  outputs.log_normaliser.setZero();
  const Index rows = on.queries().rows(), n = on.key_count();
  const InWork work("means of the values", "queries", static_cast<double>(rows));
#pragma omp parallel for schedule(dynamic)
  for (Index i = 0; i < rows; ++i) {
    if (is_in_vain()) continue;
    if (on.visible()) {
      double seen = 0;
      for (Index j = 0; j < n; ++j)
        if (on.visible()->sees(i, j)) {
          outputs.output.row(i) += on.values().row(j);
          ++seen;
        }
      outputs.output.row(i) /= seen;
    }
    outputs.output.row(i) += on.value_mean();
    InWork::add(1);
  }
  return outputs;
}

/// Draws with replacement in proportion to `scores`: how often each key was drawn. kind: draws of another kind are
/// independent.
std::map<Index, double> draws_by(const VectorXd& scores, Index draws, const KeyOptions& options, std::uint32_t kind) {
  std::vector<double> ends(static_cast<std::size_t>(scores.size()));
  std::partial_sum(scores.begin(), scores.end(), ends.begin());
  const RandomStream stream(options.seed, Purpose::sample_with_replacement, options.head);
  std::map<Index, double> counts;
  for (Index t = 0; t < draws; ++t) {
    const double at = stream.uniform(t, kind) * ends.back();
    const auto found = std::ranges::upper_bound(ends, at) - ends.begin();
    counts[std::min<Index>(found, scores.size() - 1)] += 1;
  }
  return counts;
}

/// |v_j|^2, or 1 for all if all are 0.
VectorXd value_sizes(const TokenAttention& on) {
  const VectorXd sizes = (on.values().rowwise() + on.value_mean()).rowwise().squaredNorm();
  return sizes.sum() > 0 ? sizes : VectorXd::Ones(sizes.size());
}

EstimatedOutputs kdeformer(const TokenAttention& on, const KeySums& sums, const KeyOptions& options) {
  const VectorXd sizes = value_sizes(on);
  const VectorXd p = (sums.squares / sums.squares.sum() + sizes / sizes.sum()) / 2;
  FactoredKeys of;
  const auto counts = draws_by(p, options.keep, options, 0);
  of.numerator.resize(static_cast<Index>(counts.size()));
  for (const auto& [key, count] : counts) {
    of.numerator[static_cast<Index>(of.keys.size())] = count / (static_cast<double>(options.keep) * p[key] / p.sum());
    of.keys.push_back(key);
  }
  return outputs_of(on, of);
}

/// The place of a hash in the order in which neighbours differ in one sign.
unsigned gray_place(unsigned code) {
  for (unsigned shift = 1; shift < 32; shift *= 2) code ^= code >> shift;
  return code;
}

/// The hashes of rows.
VectorXd hashes_of(const RowMajorMatrix& rows, const MatrixXd& planes) {
  const RowMajorMatrix sides = rows * planes;
  VectorXd hashes(rows.rows());
  for (Index i = 0; i < rows.rows(); ++i) {
    unsigned code = 0;
    for (Index k = 0; k < sides.cols(); ++k) code = 2 * code + (sides(i, k) > 0 ? 1U : 0U);
    hashes[i] = gray_place(code);
  }
  return hashes;
}

/// The order of numbers, the lower place first of equal ones.
std::vector<Index> order_of(std::span<const double> numbers) {
  std::vector<Index> order = numbers_below(std::ssize(numbers));
  std::ranges::stable_sort(order, {}, [&](Index i) { return numbers[static_cast<std::size_t>(i)]; });
  return order;
}

/// Collective. The queries of this rank in each of so many blocks of all queries, which are sorted by their hashes.
std::vector<std::vector<Index>> query_blocks(const TokenAttention& on, const MatrixXd& planes, Index blocks) {
  const VectorXd mine = hashes_of(on.queries(), planes);
  const auto counts = on.communicator().all_gather(std::int64_t{mine.size()});
  Index first = 0;
  for (int rank = 0; rank < on.communicator().rank(); ++rank)
    first += static_cast<Index>(counts[static_cast<std::size_t>(rank)]);
  const auto all = on.communicator().all_gather(span_of(mine));
  const auto order = order_of(all);
  std::vector<std::vector<Index>> result(static_cast<std::size_t>(blocks));
  for (std::size_t place = 0; place < order.size(); ++place)
    if (order[place] >= first && order[place] < first + mine.size())
      result[place * static_cast<std::size_t>(blocks) / order.size()].push_back(order[place] - first);
  return result;
}

EstimatedOutputs hyperattention(const TokenAttention& on, const KeyOptions& options) {
  const Index n = on.key_count(), exact = std::max<Index>(options.keep / 2, 1),
              draws = std::max<Index>(options.keep / 4, 1);
  const Index blocks = std::max<Index>((n + exact - 1) / exact, 1);
  const MatrixXd planes = gaussian_probes(on.queries().cols(), kHashBits, options.seed, options.head);
  const auto queries = query_blocks(on, planes, blocks);
  const VectorXd hashes = hashes_of(on.keys(), planes), sizes = value_sizes(on);
  const auto order = order_of(span_of(hashes));
  const auto by_value = draws_by(sizes, draws, options, 1), uniform = draws_by(VectorXd::Ones(n), draws, options, 2);
  EstimatedOutputs outputs = no_outputs(on);
  const InWork work("hashed blocks", "blocks", static_cast<double>(blocks));
  for (Index block = 0; block < blocks && !is_in_vain(); ++block) {
    const Index begin = block * n / blocks, end = (block + 1) * n / blocks;
    FactoredKeys of{{order.begin() + begin, order.begin() + end}, {}, {}};
    std::ranges::sort(of.keys);
    std::vector<double> numerator(of.keys.size(), 1.0), denominator = numerator;
    const auto in_block = [&, keys = of.keys](Index key) { return std::ranges::binary_search(keys, key); };
    const auto add = [&](Index key, double above, double below) {
      if (in_block(key)) return;
      of.keys.push_back(key);
      numerator.push_back(above);
      denominator.push_back(below);
    };
    for (const auto& [key, count] : by_value)
      add(key, count * sizes.sum() / (static_cast<double>(draws) * sizes[key]), 0);
    for (const auto& [key, count] : uniform) add(key, 0, count * static_cast<double>(n) / static_cast<double>(draws));
    of.numerator = Eigen::Map<const VectorXd>(numerator.data(), std::ssize(numerator));
    of.denominator = Eigen::Map<const VectorXd>(denominator.data(), std::ssize(denominator));
    estimate_outputs(on, of, queries[static_cast<std::size_t>(block)], true, outputs);
    InWork::add(1);
  }
  return outputs;
}

/// Collective.
KeyError error_of(const std::string& name, double keys, const TokenAttention& on, const EstimatedOutputs& found) {
  KeyError error{.name = name, .keys = keys};
  VectorXd squares(on.queries().rows());
  for (Index i = 0; i < squares.size(); ++i) {
    const bool is_blind = found.log_normaliser[i] == kNothing;
    error.blind += is_blind;
    const Eigen::RowVectorXd exact = on.output().row(i) + on.value_mean();
    squares[i] = is_blind ? exact.squaredNorm() : (found.output.row(i) - exact).squaredNorm();
  }
  const Communicator& communicator = on.communicator();
  const double root = std::sqrt(static_cast<double>(on.queries_global())), size = on.size() > 0 ? on.size() : 1;
  error.worst = root * std::sqrt(communicator.max(squares.size() > 0 ? squares.maxCoeff() : 0)) / size;
  error.output = std::sqrt(communicator.sum(squares.sum())) / size;
  error.blind = communicator.sum(error.blind);
  return error;
}

}  // namespace

void estimate_outputs(const TokenAttention& on, const FactoredKeys& of, std::span<const Index> queries, bool with_mask,
                      EstimatedOutputs& outputs) {
  const Index count = std::ssize(of.keys), d = on.queries().cols(), d_v = on.values().cols();
  if (count == 0 || queries.empty()) return;
  RowMajorMatrix K(d, count), V(count, d_v);
  for (Index k = 0; k < count; ++k) {
    K.col(k) = on.keys().row(of.keys[static_cast<std::size_t>(k)]);
    V.row(k) = on.values().row(of.keys[static_cast<std::size_t>(k)]);
  }
  const bool is_exact = of.denominator.size() == 0;
  const Index height = std::clamp<Index>(kNumbersAtOnce / count, 1, 64);
  const Index tasks = (std::ssize(queries) + height - 1) / height;
#pragma omp parallel for schedule(dynamic)
  for (Index task = 0; task < tasks; ++task) {
    if (is_in_vain()) continue;
    const Index first = task * height, rows = std::min(height, std::ssize(queries) - first);
    const auto query = [&](Index i) { return queries[static_cast<std::size_t>(first + i)]; };
    RowMajorMatrix Q(rows, d), E = RowMajorMatrix::Zero(rows, count), N = RowMajorMatrix::Zero(rows, d_v);
    for (Index i = 0; i < rows; ++i) Q.row(i) = on.queries().row(query(i));
    kernels::add_matrix_product(Q.data(), rows, d, K.data(), count, false, E.data());
    VectorXd reference(rows);
    for (Index i = 0; i < rows; ++i) {
      E.row(i) *= on.scale();
      for (Index k = 0; with_mask && on.visible() && k < count; ++k)
        if (!on.visible()->sees(query(i), of.keys[static_cast<std::size_t>(k)])) E(i, k) = kNothing;
      reference[i] = is_exact ? on.log_normaliser()[query(i)] : E.row(i).maxCoeff();
      E.row(i).array() -= reference[i] == kNothing ? 0 : reference[i];
    }
    const auto all = span_of(E);
    kernels::exp(all, all);
    const VectorXd below = is_exact ? VectorXd(VectorXd::Ones(rows)) : VectorXd(E * of.denominator);
    E.array().rowwise() *= of.numerator.transpose().array();
    kernels::add_matrix_product(E.data(), rows, count, V.data(), d_v, false, N.data());
    for (Index i = 0; i < rows; ++i) {
      if (!(below[i] > 0)) continue;
      outputs.output.row(query(i)) = (N.row(i) + E.row(i).sum() * on.value_mean()) / below[i];
      outputs.log_normaliser[query(i)] = reference[i] + std::log(below[i]);
    }
  }
}

std::vector<KeyError> key_errors(const TokenAttention& on, const KeySums& sums, const KeptKeys& kept,
                                 const KeyOptions& options) {
  const auto keep = static_cast<double>(std::min(options.keep, on.key_count()));
  InSteps steps(7);
  std::vector<KeyError> errors;
  const auto add = [&](const char* name, double keys, const auto& estimate) {
    steps.next("errors of the outputs");
    errors.push_back(error_of(name, keys, on, estimate()));
  };
  const auto like = [&](KeyMethod method) {
    KeyOptions other = options;
    other.method = method;
    other.first = other.last = 0;
    return outputs_of(on, baseline_keys(sums, other));
  };
  add("chosen", static_cast<double>(kept.keys.size()), [&] { return outputs_of(on, kept); });
  add("mean", 0, [&] { return mean_outputs(on); });
  add("uniform", keep, [&] { return like(KeyMethod::uniform); });
  add("recent", keep, [&] { return like(KeyMethod::recent); });
  add("topk", keep, [&] { return like(KeyMethod::topk); });
  add("hyperattention", keep, [&] { return hyperattention(on, options); });
  add("kdeformer", keep, [&] { return kdeformer(on, sums, options); });
  return errors;
}

}  // namespace attnreg
