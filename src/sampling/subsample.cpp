#include "sampling/subsample.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "algebra/pivoted_factor.hpp"
#include "errors/refuse.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"

namespace attnreg {

namespace {

using Eigen::MatrixXd;

constexpr double kApproximate = 0.5;  // beta of scores that are right to a factor of 2

/// Collective. How many rows are kept on average. Those with D_i = 0 are not counted.
double expected_rows(const RowMatrix& A, const VectorXd& D, const VectorXd& scores, const PoissonOptions& options) {
  double sum = 0;
  for (Index i = 0; i < scores.size(); ++i)
    if (D.size() == 0 || D[i] > 0) sum += keeping_probability(A, scores[i], options);
  return A.communicator().sum(sum);
}

/// Collective. The weights of D~ in place of those of the sample, without rows with D_i = 0.
SampledRows times(const VectorXd& D, SampledRows sample, const Communicator& communicator) {
  if (D.size() == 0) return sample;
  Index kept = 0;
  for (std::size_t k = 0; k < sample.rows.size(); ++k) {
    const Index row = sample.rows[k];
    if (!(D[row] > 0)) continue;
    sample.weights[kept] = sample.weights[static_cast<Index>(k)] * D[row];
    sample.rows[static_cast<std::size_t>(kept++)] = row;
  }
  sample.rows.resize(static_cast<std::size_t>(kept));
  sample.weights.conservativeResize(kept);
  sample.count_global = communicator.sum(static_cast<std::int64_t>(kept));
  return sample;
}

/// Collective. The c with which about `rows` are kept, on a grid of steps of 0.07 %, so that it does not depend on how
/// the ranks round their sums.
double oversampling_for(const RowMatrix& A, const VectorXd& D, const VectorXd& scores, PoissonOptions options,
                        double rows) {
  const auto c_of = [](int step) { return std::exp2(step / 1024.0); };
  int low = -40 * 1024, high = 60 * 1024;  // of c: 1e-12 to 1e18
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    options.oversampling = c_of(middle);
    (expected_rows(A, D, scores, options) < rows ? low : high) = middle;
  }
  return c_of(high);
}

/// Collective, one read. A^T diag(weights) A of some rows on rank 0, or of all.
MatrixXd gram_on_root(const RowMatrix& A, const WeightedRows& rows) {
  MatrixXd gram = signed_gram(A, rows).positive;
  A.communicator().sum_to_root(span_of(gram));
  return gram;
}

WeightedRows entries_of(const SampledRows& sample) { return {.curvature = sample.weights, .chosen = sample.rows}; }

/// Local, on rank 0.
double spectral_error(const MatrixXd& gram, const MatrixXd& sampled, std::int64_t terms) {
  const double size = static_cast<double>(gram.rows()) + std::sqrt(static_cast<double>(terms));
  const PivotedFactor factor = pivoted_cholesky(gram, 4 * std::numeric_limits<double>::epsilon() * size);
  if (!factor.finite || !sampled.allFinite()) return std::numeric_limits<double>::quiet_NaN();
  if (factor.rank() == 0) return 0;
  const MatrixXd T = factor.inverse();
  const SymmetricEigen eigen = symmetric_eigen(T.transpose() * sampled * T, false);
  return eigen.finite ? (eigen.values.array() - 1).abs().maxCoeff() : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

Subsample subsample(const RowMatrix& A, const VectorXd& D, const SubsampleOptions& options) {
  if (options.rows < 0) refuse(std::to_string(options.rows) + " rows: give at least 1, or 0 for as many as needed");
  Subsample result;
  result.scores =
      options.exact_scores ? exact_leverage_scores(A, D, ExactRoute::qr) : leverage_scores(A, D, options.scores);
  const VectorXd& scores = result.scores.scores;
  if (result.scores.rank == 0) refuse("A^T D A is 0: there is nothing to sample");
  const double beta = options.exact_scores ? 1 : kApproximate;
  if (options.with_replacement) {
    const std::int64_t draws = options.rows > 0
                                   ? options.rows
                                   : with_replacement_size(result.scores.rank, options.epsilon, options.delta, beta);
    result.rows = sample_with_replacement(A, scores, {.draws = draws, .seed = options.scores.seed});
    result.expected = static_cast<double>(draws);
  } else {
    PoissonOptions poisson{.seed = options.scores.seed};
    poisson.oversampling =
        options.rows > 0 ? oversampling_for(A, D, scores, poisson, static_cast<double>(options.rows))
                         : poisson_oversampling(result.scores.rank, options.epsilon, options.delta, poisson) / beta;
    result.rows = sample_poisson(A, scores, poisson);
    result.expected = expected_rows(A, D, scores, poisson);
    result.oversampling = poisson.oversampling;
  }
  result.rows = times(D, std::move(result.rows), A.communicator());
  return result;
}

SubsampleError subsample_error(const RowMatrix& A, const VectorXd& D, const SampledRows& sample, int probes,
                               std::uint64_t seed, Index limit) {
  const Communicator& communicator = A.communicator();
  const Index d = A.columns();
  const VectorXd all = D.size() > 0 ? D : VectorXd::Ones(A.rows_local());
  SubsampleError error;
  VectorXd forms = VectorXd::Zero(2 * probes);  // v^T A^T D A v and v^T A^T D~ A v
  const MatrixXd V = gaussian_probes(d, probes, seed);
  for (int k = 0; k < probes; ++k) {
    const VectorXd z = A.multiply(V.col(k));
    forms[2 * k] = all.dot(z.cwiseAbs2());
    for (std::size_t i = 0; i < sample.rows.size(); ++i)
      forms[2 * k + 1] += sample.weights[static_cast<Index>(i)] * z[sample.rows[i]] * z[sample.rows[i]];
  }
  communicator.sum(span_of(forms));
  for (int k = 0; k < probes; ++k)
    if (forms[2 * k] > 0) error.probed = std::max(error.probed, std::abs(forms[2 * k + 1] / forms[2 * k] - 1));
  if (d > limit) return error;
  const MatrixXd gram = gram_on_root(A, {.curvature = all}), sampled = gram_on_root(A, entries_of(sample));
  VectorXd message(1);
  if (communicator.is_root()) message[0] = spectral_error(gram, sampled, A.rows_global());
  communicator.broadcast(span_of(message));
  error.spectral = message[0];
  return error;
}

}  // namespace attnreg
