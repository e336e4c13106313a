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
#include "sampling/leverage_basis.hpp"

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

/// Collective. The weights of D~ in place of those of the sample, without rows with D_i = 0. D may be empty on a rank
/// without rows, too.
SampledRows times(const VectorXd& D, SampledRows sample, const Communicator& communicator) {
  Index kept = 0;
  for (std::size_t k = 0; k < sample.rows.size(); ++k) {
    const Index row = sample.rows[k];
    const double own = D.size() > 0 ? D[row] : 1;
    if (!(own > 0)) continue;
    sample.weights[kept] = sample.weights[static_cast<Index>(k)] * own;
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

constexpr double kNotFound = std::numeric_limits<double>::quiet_NaN();

/// Local, on rank 0. The largest |eigenvalue - 1|; NaN for a matrix that is not finite.
double distance_from_one(const MatrixXd& whitened) {
  const SymmetricEigen eigen = symmetric_eigen(whitened, false);
  return eigen.finite ? (eigen.values.array() - 1).abs().maxCoeff() : kNotFound;
}

/// Local, on rank 0. From Gram matrices; NaN where they hide small directions, or under- or overflow.
double error_of_grams(const MatrixXd& gram, const MatrixXd& sampled) {
  constexpr double kClear = 1e-10;       // of the eigenvalues: the error is right to about d 1e-6
  constexpr double kAllDigits = 1e-290;  // smaller sums lose digits
  if (!(gram.diagonal().minCoeff() > kAllDigits)) return kNotFound;
  const PivotedFactor factor = pivoted_cholesky(gram, kClear);
  if (!factor.finite || !sampled.allFinite() || factor.rank() < gram.rows()) return kNotFound;
  const MatrixXd T = factor.inverse();
  return distance_from_one(T.transpose() * sampled * T);
}

/// Local, on rank 0. From the R of the rows and that of the sample.
double error_of_factors(const MatrixXd& R, const MatrixXd& sampled, double tolerance) {
  const PivotedFactor factor = pivoted_qr(R, tolerance);
  if (!factor.finite || factor.rank() == 0) return kNotFound;
  const MatrixXd M = sampled * factor.inverse();
  return distance_from_one(M.transpose() * M);
}

/// Collective, two reads. The same by QR, as exact scores are found: any scale, and conditions up to 1e13.
double error_by_qr(const RowMatrix& A, const VectorXd& D, const SampledRows& sample) {
  VectorXd roots = VectorXd::Zero(A.rows_local());
  for (std::size_t k = 0; k < sample.rows.size(); ++k)
    roots[sample.rows[k]] = std::sqrt(sample.weights[static_cast<Index>(k)]);
  const MatrixXd R = triangular_factor_on_root(A, D.cwiseSqrt()), sampled = triangular_factor_on_root(A, roots);
  return A.communicator().is_root() ? error_of_factors(R, sampled, rank_tolerance(A, A.columns())) : 0;
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
  VectorXd forms = VectorXd::Zero(2 * probes);  // v^T A^T D A v and v^T A^T D~ A v, by the largest term
  const MatrixXd V = gaussian_probes(d, probes, seed);
  for (int k = 0; k < probes; ++k) {
    VectorXd z = A.multiply(V.col(k)).cwiseProduct(all.cwiseSqrt());
    const double largest = communicator.max(z.size() > 0 ? z.cwiseAbs().maxCoeff() : 0.0);
    if (!(largest > 0)) continue;
    z /= largest;
    forms[2 * k] = z.squaredNorm();
    for (std::size_t i = 0; i < sample.rows.size(); ++i) {
      const Index row = sample.rows[i];
      forms[2 * k + 1] += sample.weights[static_cast<Index>(i)] / all[row] * z[row] * z[row];
    }
  }
  communicator.sum(span_of(forms));
  for (int k = 0; k < probes; ++k)
    if (forms[2 * k] > 0) error.probed = std::max(error.probed, std::abs(forms[2 * k + 1] / forms[2 * k] - 1));
  if (d > limit) return error;
  const MatrixXd gram = gram_on_root(A, {.curvature = all}), sampled = gram_on_root(A, entries_of(sample));
  const auto shared = [&](double found) {
    communicator.broadcast(std::span<double>(&found, 1));
    return found;
  };
  error.spectral = shared(communicator.is_root() ? error_of_grams(gram, sampled) : 0);
  if (std::isnan(error.spectral)) error.spectral = shared(error_by_qr(A, all, sample));
  return error;
}

}  // namespace attnreg
