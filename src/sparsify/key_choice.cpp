#include "sparsify/key_choice.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "attnreg/leverage.hpp"
#include "errors/refuse.hpp"
#include "numbers/random.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "sparsify/key_elimination.hpp"

namespace attnreg {

namespace {

bool is_forced(Index key, Index count, const KeyOptions& options) {
  return key < options.first || key >= count - options.last;
}

/// Collective. The scores of K^T K, on every rank, rounded so that their last digits do not decide.
VectorXd leverage_of(const RowMatrix& keys) {
  const VectorXd mine = exact_leverage_scores(keys, {}, ExactRoute::qr).scores;
  const auto all = keys.communicator().all_gather(span_of(mine));
  VectorXd scores = Eigen::Map<const VectorXd>(all.data(), static_cast<Index>(all.size()));
  return ((scores * 0x1p40).array().rint() * 0x1p-40).matrix();
}

VectorXd share_of(const VectorXd& scores) {
  const double sum = scores.sum();
  return sum > 0 ? VectorXd(scores / sum) : VectorXd::Constant(scores.size(), 1 / static_cast<double>(scores.size()));
}

/// Collective. What the probabilities are in proportion to.
VectorXd drawing_scores(const TokenAttention& attention, const RowMatrix& keys, const KeySums& sums, KeyMethod method) {
  const VectorXd norms = attention.keys().rowwise().squaredNorm();
  const VectorXd values = (attention.values().rowwise() + attention.value_mean()).rowwise().squaredNorm();
  switch (method) {
    case KeyMethod::output: return share_of(sums.output.cwiseSqrt());
    case KeyMethod::leverage: return share_of(leverage_of(keys));
    case KeyMethod::norm: return share_of(norms);
    case KeyMethod::values: return share_of(values);
    case KeyMethod::mixed:
      return (share_of(leverage_of(keys)) + share_of(norms) + share_of(values) +
              share_of(VectorXd::Zero(values.size()))) /
             4;
    default: return share_of(VectorXd::Zero(values.size()));
  }
}

/// p_j = min(1, c score_j), those of forced keys 1, with sum `keep`; c on a grid of steps of 0.07 %, so that the last
/// digits of the scores do not decide.
VectorXd probabilities(const VectorXd& scores, const KeyOptions& options) {
  const Index n = scores.size();
  const auto with = [&](double c) {
    VectorXd p = (c * scores).cwiseMin(1);
    p.head(options.first).setOnes();
    p.tail(options.last).setOnes();
    return p;
  };
  int low = -20 * 1024, high = 100 * 1024;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (with(std::exp2(middle / 1024.0)).sum() < static_cast<double>(std::min(options.keep, n)) ? low : high) = middle;
  }
  return with(std::exp2(high / 1024.0));
}

KeptKeys drawn(const VectorXd& probability, const KeyOptions& options) {
  const RandomStream stream(options.seed, Purpose::sample_poisson, options.head);
  KeptKeys kept;
  std::vector<double> weights;
  for (Index j = 0; j < probability.size(); ++j) {
    if (!(stream.uniform(j) < probability[j])) continue;
    kept.keys.push_back(j);
    weights.push_back(1 / probability[j]);
  }
  kept.weights = Eigen::Map<const VectorXd>(weights.data(), static_cast<Index>(weights.size()));
  return kept;
}

/// The keys with the largest scores, the lower ones of equal scores; forced ones before all.
KeptKeys largest(const VectorXd& scores, const KeyOptions& options) {
  const Index n = scores.size();
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  std::ranges::stable_sort(order, [&](Index a, Index b) {
    const bool a_first = is_forced(a, n, options), b_first = is_forced(b, n, options);
    return a_first != b_first ? a_first : scores[a] > scores[b];
  });
  order.resize(static_cast<std::size_t>(std::min(options.keep, n)));
  std::ranges::sort(order);
  return {order, VectorXd::Ones(static_cast<Index>(order.size()))};
}

/// What halving has left.
class Halving {
 public:
  Halving(const TokenAttention& attention, const KeyOptions& options) : attention_(attention), options_(options) {
    kept_.keys.resize(static_cast<std::size_t>(attention.key_count()));
    std::iota(kept_.keys.begin(), kept_.keys.end(), Index{0});
    kept_.weights = VectorXd::Ones(attention.key_count());
  }

  /// Collective.
  KeptKeys run(const KeySums& sums) {
    int rounds = 0;
    for (Index left = attention_.key_count(); left > options_.keep; left = (left + 1) / 2) ++rounds;
    InSteps steps(rounds + 1);
    while (count() > options_.keep) {
      steps.next("halving of the keys");
      const Index before = count();
      halve();
      if (count() == before) break;  // all that is left is kept whatever is chosen
    }
    steps.next("weights of the keys");
    if (count() <= kMostFitted) fit(sums);
    return kept_;
  }

 private:
  Index count() const { return static_cast<Index>(kept_.keys.size()); }

  VectorXd floors(Index first, Index size) const {
    VectorXd floors = VectorXd::Zero(size);
    for (Index k = 0; k < size; ++k)
      if (is_forced(kept_.keys[static_cast<std::size_t>(first + k)], attention_.key_count(), options_)) floors[k] = 1;
    return floors;
  }

  /// Collective. Rank 0 decides, so that ranks on other CPUs do not differ.
  void take(VectorXd weights) {
    attention_.communicator().broadcast(span_of(weights));
    KeptKeys kept;
    for (Index k = 0; k < weights.size(); ++k)
      if (weights[k] > 0) {
        const auto place = static_cast<Index>(kept.keys.size());
        kept.keys.push_back(kept_.keys[static_cast<std::size_t>(k)]);
        weights[place] = weights[k];
      }
    kept.weights = weights.head(static_cast<Index>(kept.keys.size()));
    kept_ = std::move(kept);
  }

  void halve() {
    const Index target = std::max(options_.keep, (count() + 1) / 2);
    std::vector<MatrixXd> grams = attention_.feature_grams(kept_.keys, false);
    VectorXd weights = kept_.weights;
    if (attention_.communicator().is_root()) {
      std::vector<ChunkElimination> chunks;
      Index first = 0;
      for (MatrixXd& gram : grams) {
        const Index size = gram.rows();
        chunks.emplace_back(std::move(gram), weights.segment(first, size), floors(first, size));
        first += size;
      }
      eliminate(chunks, count() - target);
      first = 0;
      for (const ChunkElimination& chunk : chunks)
        for (Index k = 0; k < chunk.weights().size(); ++k) weights[first++] = chunk.keeps(k) ? chunk.weights()[k] : 0;
    }
    take(std::move(weights));
  }

  void fit(const KeySums& sums) {
    const std::vector<MatrixXd> grams = attention_.feature_grams(kept_.keys, true);
    VectorXd weights = kept_.weights;
    if (attention_.communicator().is_root()) {
      MatrixXd gram(count(), count());
      std::size_t task = 0;
      for (Index a = 0; a < count(); a += kTokenChunk)
        for (Index b = 0; b <= a; b += kTokenChunk) {
          const MatrixXd& part = grams[task++];
          gram.block(a, b, part.rows(), part.cols()) = part;
          gram.block(b, a, part.cols(), part.rows()) = part.transpose();
        }
      VectorXd target(count());
      for (Index k = 0; k < count(); ++k)
        target[k] = attention_.spread() * sums.mass[kept_.keys[static_cast<std::size_t>(k)]];
      weights = fitted_weights(gram, target, weights, floors(0, count()));
    }
    take(std::move(weights));
    kept_.is_fitted = true;
  }

  const TokenAttention& attention_;
  const KeyOptions& options_;
  KeptKeys kept_;
};

}  // namespace

KeptKeys baseline_keys(const KeySums& sums, const KeyOptions& options) {
  const Index n = sums.mass.size();
  if (options.method == KeyMethod::recent) return largest(VectorXd::LinSpaced(n, 0, static_cast<double>(n)), options);
  if (options.method == KeyMethod::topk) return largest(sums.mass, options);
  return drawn(probabilities(share_of(VectorXd::Zero(n)), options), options);
}

KeptKeys choose_keys(const TokenAttention& attention, const RowMatrix& keys, const KeySums& sums,
                     const KeyOptions& options) {
  const Index n = attention.key_count();
  if (options.keep < 1) refuse(std::to_string(options.keep) + " keys: give at least 1");
  if (options.first < 0 || options.last < 0 || options.first + options.last > std::min(options.keep, n))
    refuse("the first " + std::to_string(options.first) + " and the last " + std::to_string(options.last) +
           " keys are more than the " + std::to_string(std::min(options.keep, n)) + " that are kept");
  switch (options.method) {
    case KeyMethod::halving: return Halving(attention, options).run(sums);
    case KeyMethod::uniform:
    case KeyMethod::recent:
    case KeyMethod::topk: return baseline_keys(sums, options);
    default: return drawn(probabilities(drawing_scores(attention, keys, sums, options.method), options), options);
  }
}

}  // namespace attnreg
