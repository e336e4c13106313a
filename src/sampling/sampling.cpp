#include "sampling/sampling.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>

#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "numbers/random.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

namespace {

constexpr double kUnit = 0x1p-40;
constexpr std::int64_t kMaxSum = std::int64_t{1} << 61;  // units: twice that is still an int64

// What a rank says instead of its sum of units.
constexpr std::int64_t kBadScores = -1, kTooLarge = -2;

/// The score in units of 2^-40, at most 1.
double rounded(double score) { return std::nearbyint(std::min(score, 1.0) / kUnit); }

/// The same for draws with replacement: no row that matters may have probability 0.
std::int64_t units(double score) {
  return score > 0 ? std::max(std::int64_t{1}, static_cast<std::int64_t>(rounded(score))) : 0;
}

bool are_usable(const RowMatrix& A, const VectorXd& scores) {
  return scores.size() == A.rows_local() && (scores.array() >= 0).all() && scores.allFinite();
}

/// Collective. Called on all ranks when one of them has unusable scores.
[[noreturn]] void explain_scores(const RowMatrix& A, const VectorXd& scores) {
  A.communicator().agree([&] { check_row_numbers(A, scores, "score"); });
  throw InternalError("a rank reported scores that it could use");
}

VectorXd as_vector(const std::vector<double>& values) {
  return Eigen::Map<const VectorXd>(values.data(), static_cast<Index>(values.size()));
}

/// This rank's sum in units, or why there is none.
std::int64_t sum_of_units(const RowMatrix& A, const VectorXd& scores) {
  if (!are_usable(A, scores)) return kBadScores;
  std::int64_t sum = 0;
  for (const double score : scores) {
    sum += units(score);
    if (sum >= kMaxSum) return kTooLarge;
  }
  return sum;
}

__extension__ typedef unsigned __int128 Wide;

/// floor(u total) for a uniform u of 128 bits.
std::int64_t uniform_below(std::int64_t total, const std::array<std::uint32_t, 4>& words) {
  const auto high = std::uint64_t{words[0]} << 32 | words[1], low = std::uint64_t{words[2]} << 32 | words[3];
  const auto factor = static_cast<std::uint64_t>(total);
  return static_cast<std::int64_t>((Wide{high} * factor + (Wide{low} * factor >> 64)) >> 64);
}

/// How often each row is drawn. ends: where the units of a row end, of all `total` units; this rank's begin at `begin`.
std::vector<std::int64_t> own_draws(const ReplacementOptions& options, std::int64_t begin,
                                    const std::vector<std::int64_t>& ends, std::int64_t total) {
  const RandomStream stream(options.seed, Purpose::sample_with_replacement, options.iteration);
  std::vector<std::int64_t> draws(ends.size());
  for (std::int64_t t = 0; t < options.draws; ++t) {
    constexpr std::int64_t kBetweenLooks = 1 << 16;
    if (t % kBetweenLooks == 0 && is_in_vain()) break;
    const std::int64_t position = uniform_below(total, stream.bits(t));
    if (ends.empty() || position < begin || position >= ends.back()) continue;
    ++draws[static_cast<std::size_t>(std::ranges::upper_bound(ends, position) - ends.begin())];
  }
  return draws;
}

/// (1 + e) ln(1 + e) - e, which is about e^2 / 2 and would cancel for small e.
double chernoff_exponent(double epsilon) {
  constexpr double kSmall = 1e-4;  // the next term of the series is below 1e-8 of the first, as is what cancels
  if (epsilon < kSmall) return epsilon * epsilon * (0.5 - epsilon / 6);
  return (1 + epsilon) * std::log1p(epsilon) - epsilon;
}

}  // namespace

void check_row_numbers(const RowMatrix& A, const VectorXd& numbers, const std::string& what) {
  if (numbers.size() != A.rows_local())
    throw InvalidArgument("rank " + std::to_string(A.communicator().rank()) + " owns " +
                          std::to_string(A.rows_local()) + " rows but was given " + std::to_string(numbers.size()) +
                          " " + what + "s");
  for (Index i = 0; i < numbers.size(); ++i)
    if (!(numbers[i] >= 0) || !std::isfinite(numbers[i]))
      throw InvalidArgument(what + " of row " + std::to_string(A.first_row() + i) + " is " + text_of(numbers[i]) +
                            ": it must be a number >= 0");
}

double keeping_probability(const RowMatrix& A, double score, const PoissonOptions& options) {
  const double c = options.oversampling, u = options.uniform_share;
  const double uniform_part = u * static_cast<double>(A.columns()) / static_cast<double>(A.rows_global());
  return std::min(1.0, c * ((1 - u) * (rounded(score) * kUnit) + uniform_part));
}

double poisson_oversampling(Index rank, double epsilon, double delta, const PoissonOptions& options) {
  const double failures = std::log(2 * static_cast<double>(rank)) - std::log(delta);
  const double wanted = failures / (chernoff_exponent(epsilon) * (1 - options.uniform_share));
  return std::min(wanted, 0x1p1000);  // all rows that have a score
}

SampledRows keep_rows(const RowMatrix& A, const VectorXd& scores, const PoissonOptions& options) {
  const RandomStream stream(options.seed, Purpose::sample_poisson, options.iteration);
  SampledRows sample;
  std::vector<double> weights;
  std::array<double, 512> uniform;
  const std::span<double> block(uniform);
  for (Index i = 0; i < scores.size(); ++i) {
    const auto k = static_cast<std::size_t>(i) % uniform.size();
    if (k == 0)
      stream.uniforms(A.first_row() + i,
                      block.first(std::min(block.size(), static_cast<std::size_t>(scores.size() - i))));
    const double p = keeping_probability(A, scores[i], options);
    if (!(uniform[k] < p)) continue;
    sample.rows.push_back(i);
    weights.push_back(1 / p);
  }
  sample.weights = as_vector(weights);
  return sample;
}

SampledRows sample_poisson(const RowMatrix& A, const VectorXd& scores, const PoissonOptions& options) {
  const double c = options.oversampling, u = options.uniform_share;
  if (!(c > 0) || !std::isfinite(c)) refuse("oversampling " + text_of(c) + ": give a number > 0");
  if (!(u >= 0 && u <= 1)) refuse("uniform share " + text_of(u) + ": give a number from 0 to 1");
  SampledRows sample;
  std::int64_t count = -(std::int64_t{1} << 45);  // unusable scores; more than all rows of the other ranks
  if (are_usable(A, scores)) {
    sample = keep_rows(A, scores, options);
    count = static_cast<std::int64_t>(sample.rows.size());
  }
  sample.count_global = A.communicator().sum(count);
  if (sample.count_global < 0) explain_scores(A, scores);
  return sample;
}

SampledRows sample_with_replacement(const RowMatrix& A, const VectorXd& scores, const ReplacementOptions& options) {
  const std::int64_t m = options.draws;
  if (m < 1 || m > std::numeric_limits<std::int32_t>::max()) refuse(std::to_string(m) + " draws: give 1 to 2^31 - 1");
  const auto sums = A.communicator().all_gather(sum_of_units(A, scores));
  std::int64_t total = 0, begin = 0;
  for (std::size_t rank = 0; rank < sums.size(); ++rank) {
    if (sums[rank] == kBadScores) explain_scores(A, scores);
    total += sums[rank];
    if (sums[rank] == kTooLarge || total >= kMaxSum) refuse("the scores sum to 2^21 or more: scale them down");
    if (static_cast<int>(rank) < A.communicator().rank()) begin = total;
  }
  SampledRows sample;
  if (total == 0) return sample;
  std::vector<std::int64_t> ends;
  for (std::int64_t last = begin; const double score : scores) ends.push_back(last += units(score));
  const auto draws = own_draws(options, begin, ends, total);
  std::vector<double> weights;
  for (Index i = 0; i < scores.size(); ++i) {
    const auto count = static_cast<double>(draws[static_cast<std::size_t>(i)]);
    if (count == 0) continue;
    const double p = static_cast<double>(units(scores[i])) / static_cast<double>(total);
    sample.rows.push_back(i);
    weights.push_back(count / (static_cast<double>(m) * p));
  }
  sample.weights = as_vector(weights);
  sample.count_global = A.communicator().sum(static_cast<std::int64_t>(sample.rows.size()));
  return sample;
}

std::int64_t with_replacement_size(Index d, double epsilon, double delta, double beta) {
  if (d < 1 || !(epsilon > 0 && epsilon <= 1) || !(delta > 0 && delta < 1) || !(beta > 0 && beta <= 1))
    refuse("sample size for d = " + std::to_string(d) + ", epsilon = " + text_of(epsilon) + ", delta = " +
           text_of(delta) + ", beta = " + text_of(beta) + ": give d >= 1, epsilon and beta in (0, 1], delta in (0, 1)");
  const double columns = static_cast<double>(d);
  const double failures = std::log(2 * columns) - std::log(delta);
  const double size = std::ceil(columns * failures / (beta * chernoff_exponent(epsilon)));
  if (!(size < 0x1p62)) refuse("epsilon = " + text_of(epsilon) + " asks for more than 2^62 draws");
  return static_cast<std::int64_t>(size);
}

Eigen::MatrixXd gaussian_probes(Index d, int count, std::uint64_t seed, std::uint32_t iteration) {
  const RandomStream stream(seed, Purpose::spectral_probes, iteration);
  Eigen::MatrixXd probes(d, count);
  for (int k = 0; k < count; ++k)
    stream.normals(k, std::span<double>(probes.col(k).data(), static_cast<std::size_t>(d)));
  return probes;
}

}  // namespace attnreg
