#include "attnreg/apply_attention.hpp"
#include "errors/refuse.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "algebra/dense_factors.hpp"
#include "apply/attention_kernel.hpp"
#include "errors/printable.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

namespace {

/// What must hold before anything of the data is looked at. Returns k.
std::int64_t check(const PrivateAttentionOptions& options) {
  const std::int64_t limit = sample_limit(options.budget, options.change);  // checks both
  if (!(options.ridge >= 0) || !std::isfinite(options.ridge)) refuse("the ridge must be a number >= 0");
  if (!(options.smallest_eigenvalue >= 0)) refuse("eta must be a number >= 0");
  if (!(options.scale > 0) || !std::isfinite(options.scale)) refuse("the scale of the logits must be a number > 0");
  if (options.samples < 0) refuse("the number of samples must be at least 1");
  const std::int64_t samples = options.samples > 0 ? options.samples : std::max<std::int64_t>(limit, 1);
  if (samples <= limit) return samples;
  const double delta = privacy_delta(options.change, samples, options.budget.epsilon).delta;
  refuse("not private: condition delta(epsilon) <= " + text_of(options.budget.delta) +
         " fails for k = " + std::to_string(samples) + ": it can be " + text_of(delta) + " with the sensitivity " +
         text_of(options.change.frobenius()) +
         (limit > 0 ? "; at most " + std::to_string(limit) + " samples are allowed"
                    : "; not even one sample is allowed; more ridge makes the sensitivity smaller"));
}

/// The Cholesky factor of Sigma and its smallest eigenvalue.
struct Factor {
  MatrixXd L;
  double smallest_eigenvalue = 0;
};

/// Local. Throws on this rank if Sigma cannot be sampled.
Factor factor(const MatrixXd& Sigma, double eta) {
  const SymmetricEigen eigen = symmetric_eigen(Sigma, false);
  if (!eigen.finite) throw InvalidArgument("the covariance is not finite: X X^T overflows");
  const double smallest = eigen.values[0], rounding = eigenvalue_rounding(Sigma.rows(), Sigma.stableNorm());
  if (smallest <= rounding)
    throw InvalidArgument("not private: condition Sigma positive definite fails: its smallest eigenvalue is " +
                          text_of(smallest) + ", not above rounding (" + text_of(rounding) + "); add a ridge");
  if (smallest < eta)
    throw InvalidArgument("not private: condition lambda_min(Sigma) >= eta fails: " + text_of(smallest) + " < " +
                          text_of(eta) + "; add a ridge");
  Cholesky cholesky;
  if (!cholesky.factor(Sigma)) throw InvalidArgument("not private: the covariance has no Cholesky factor");
  return {cholesky.lower(), smallest};
}

/// Local. This rank's part of sum_s z_s z_s^T, z_s ~ N(0, I), lower triangle.
MatrixXd sample_squares(const Communicator& communicator, Index n, std::int64_t samples, std::uint64_t seed) {
  const RandomStream random(seed, Purpose::private_samples);
  const auto shares = RowPartition::in_blocks(samples, 1, communicator.size());
  const std::int64_t end = shares.end(communicator.rank());
  MatrixXd squares = MatrixXd::Zero(n, n), Z;
  for (std::int64_t first = shares.begin(communicator.rank()); first < end && !is_in_vain(); first += kKeyBlockRows) {
    Z.resize(n, std::min<std::int64_t>(kKeyBlockRows, end - first));
    for (Index s = 0; s < Z.cols(); ++s) random.normals(first + s, {Z.col(s).data(), static_cast<std::size_t>(n)});
    squares.selfadjointView<Eigen::Lower>().rankUpdate(Z);
  }
  return squares;
}

RowMajorMatrix attention_of(RowMajorMatrix covariance, double ridge, double scale) {
  covariance.diagonal().array() -= ridge;
  normalise_attention({AttentionKernel::Kind::softmax, 1, scale}, 0, covariance);
  return covariance;
}

/// ln P, where P itself may underflow.
RowMajorMatrix log_attention_of(RowMajorMatrix covariance, double ridge, double scale) {
  covariance.diagonal().array() -= ridge;
  covariance *= scale;
  for (auto row : covariance.rowwise()) {
    row.array() -= row.maxCoeff();
    row.array() -= std::log(row.array().exp().sum());
  }
  return covariance;
}

/// What errors are measured against.
struct Truth {
  MatrixXd covariance;
  RowMajorMatrix log_attention;

  ReleaseError error_of(const RowMajorMatrix& log_published, const MatrixXd& published) const {
    const auto relative = [](const auto& published_one, const auto& true_one) {
      const double error = (published_one - true_one).eval().stableNorm(), size = true_one.stableNorm();
      return error == 0 ? 0 : error / size;
    };
    const RowMajorMatrix P = log_attention.array().exp(), published_P = log_published.array().exp();
    return {.entry = (log_published - log_attention).array().expm1().abs().maxCoeff(),
            .attention = relative(published_P, P),
            .covariance = relative(published, covariance)};
  }
};

/// The errors of the release, and of what needs no release.
void add_errors(const MatrixXd& covariance, const PrivateAttentionOptions& options, PrivateAttention& result) {
  const Index n = covariance.rows();
  const double ridge = options.ridge, scale = options.scale;
  const Truth truth{covariance, log_attention_of(covariance, 0, scale)};
  result.release = truth.error_of(log_attention_of(result.covariance, ridge, scale), result.covariance);
  result.nothing =
      truth.error_of(RowMajorMatrix::Constant(n, n, -std::log(static_cast<double>(n))), MatrixXd::Zero(n, n));
  MatrixXd Sigma = covariance;
  Sigma.diagonal().array() += ridge;
  result.ridge_alone = truth.error_of(log_attention_of(Sigma, ridge, scale), Sigma);
}

/// Local, on rank 0. The release and its errors but those of `add_errors`.
PrivateAttention release(const MatrixXd& Sigma, const Factor& factored, const MatrixXd& lower_squares,
                         std::int64_t samples, const PrivateAttentionOptions& options) {
  const auto k = static_cast<double>(samples), n = static_cast<double>(Sigma.rows());
  PrivateAttention result;
  const MatrixXd squares = lower_squares.selfadjointView<Eigen::Lower>();
  result.covariance = factored.L * squares * factored.L.transpose() / k;
  result.covariance = (result.covariance + result.covariance.transpose()).eval() / 2;
  result.attention = attention_of(result.covariance, options.ridge, options.scale);

  const auto L = factored.L.triangularView<Eigen::Lower>();
  const MatrixXd half = L.solve(MatrixXd(result.covariance));
  MatrixXd error = L.solve(MatrixXd(half.transpose()));
  error.diagonal().array() -= 1;
  result.frobenius_error = error.norm();
  result.spectral_error = symmetric_eigen(error, false).values.cwiseAbs().maxCoeff();
  result.expected_spectral_error = 2 * std::sqrt(n / k) + n / k;
  result.expected_frobenius_error = std::sqrt(n * (n + 1) / k);
  return result;
}

}  // namespace

MatrixXd row_gram(const RowMatrix& X) {
  const auto n = static_cast<Index>(X.rows_global());
  const RowMajorMatrix mine = dense_rows(X, 0, X.rows_local());
  RowMajorMatrix rows(mine.rows(), n);
  for (Index first = 0; first < n; first += kKeyBlockRows) {
    const Index count = std::min(kKeyBlockRows, n - first);
    rows.middleCols(first, count).noalias() = mine * shared_rows(X, first, count).transpose();
  }
  const auto all = X.communicator().all_gather(span_of(rows));
  const MatrixXd gram = Eigen::Map<const RowMajorMatrix>(all.data(), n, n);
  return gram.selfadjointView<Eigen::Lower>();
}

PrivateAttention private_attention(const Communicator& communicator, const MatrixXd& covariance,
                                   const PrivateAttentionOptions& options) {
  const std::int64_t samples = check(options);
  const Index n = covariance.rows();
  if (n < 1 || covariance.cols() != n)
    refuse("the covariance is " + std::to_string(n) + " x " + std::to_string(covariance.cols()) + ", expected square");
  const double skew = (covariance - covariance.transpose()).eval().stableNorm();
  if (!(skew <= 1e-12 * covariance.stableNorm())) refuse("the covariance is not symmetric, or not finite");
  const MatrixXd symmetric = (covariance + covariance.transpose()) / 2;
  MatrixXd Sigma = symmetric;
  Sigma.diagonal().array() += options.ridge;

  Factor factored;
  communicator.agree_on_root([&] { factored = factor(Sigma, options.smallest_eigenvalue); });
  MatrixXd squares = sample_squares(communicator, n, samples, options.seed);
  communicator.sum_to_root(span_of(squares));
  PrivateAttention result;
  communicator.agree_on_root([&] {
    result = release(Sigma, factored, squares, samples, options);
    add_errors(symmetric, options, result);
  });
  result.samples = samples;
  result.privacy = privacy_delta(options.change, samples, options.budget.epsilon);
  result.sensitivity_limit = change_limit(options.budget, samples, options.change.eigenvalues).frobenius();
  result.smallest_eigenvalue = factored.smallest_eigenvalue;
  return result;
}

}  // namespace attnreg
