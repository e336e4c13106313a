#include "sampled_model.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "attnreg/leverage.hpp"
#include "keep_rows.hpp"
#include "linear_solver.hpp"

namespace attnreg {

using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr double kFirstRidge = 1e-14, kLastRidge = 1e-4;  // relative to the diagonal of M
constexpr double kDependent = 20;      // pivots of so many ridges belong to columns that depend on earlier ones
constexpr int kTiredModels = 3;        // in a row: sampling does not serve here
constexpr double kStaleScores = 0.25;  // of their sum when they were made: below, they are too small by now

constexpr double kSparseOversampling = 30;  // their Gram matrices are cheap

// In units of one read, 8 bytes at 16 GB/s: a flop of a Gram matrix at 25 Gflop/s, on all cores, and of a Cholesky
// factor, on one.
constexpr double kGram = 0.08, kCholesky = 0.03;

/// Of a Gram matrix of this share of the rows with so many numbers each.
double model_price(double share, double row) { return share * (1 + kGram * row); }

std::span<double> span_of(VectorXd& v) { return {v.data(), static_cast<std::size_t>(v.size())}; }

/// Lower Cholesky factor of a matrix that may be singular: with the smallest ridge of the ladder that will do.
std::optional<MatrixXd> damped_factor(MatrixXd M, const VectorXd& scale) {
  if (!M.allFinite()) return {};
  const VectorXd diagonal = M.diagonal();
  const double largest = scale.maxCoeff();
  const VectorXd positive_scale = (scale.array() > 0).select(scale, largest > 0 ? largest : 1.0);
  Cholesky cholesky;
  for (double ridge = kFirstRidge; ridge <= kLastRidge; ridge *= 100) {
    M.diagonal() = diagonal + ridge * positive_scale;
    if (!cholesky.factor(M)) continue;
    MatrixXd L = cholesky.lower();
    for (Eigen::Index j = 0; j < L.rows(); ++j)  // else M^-1 would blow up the rounding of g along these columns
      if (L(j, j) * L(j, j) <= kDependent * ridge * positive_scale[j]) L(j, j) = std::sqrt(positive_scale[j]);
    return L;
  }
  return {};
}

}  // namespace

double automatic_oversampling(std::int64_t rows, Eigen::Index columns) {
  constexpr double kModels = 6, kProducts = 17;  // of a typical solve; products with a perfect model
  constexpr Eigen::Index kWide = 256;
  if (columns <= kWide) return 30;
  const auto d = static_cast<double>(columns), n = static_cast<double>(rows);
  const auto work = [&](double c) {
    return kModels * model_price(std::min(1.0, 1.2 * c * d / n), d) +
           kProducts * (std::sqrt(c) + 1) / (std::sqrt(c) - 1);
  };
  constexpr std::array candidates{30.0, 20.0, 15.0, 10.0};
  return *std::min_element(candidates.begin(), candidates.end(), [&](double a, double b) { return work(a) < work(b); });
}

SampledModel::SampledModel(const RowMatrix& A, const VectorXd& w2, const SamplingOptions& options)
    : A_(A), w2_(w2), options_(options) {
  const auto d = static_cast<double>(A.columns()), n = static_cast<double>(A.rows_global());
  const double sketch_rows = options.sketch_rows > 0 ? static_cast<double>(options.sketch_rows) : 6 * d;
  if (options_.oversampling == 0)
    options_.oversampling = A.is_sparse() ? kSparseOversampling : automatic_oversampling(A.rows_global(), A.columns());
  all_rows_ = options_.oversampling * d >= n || sketch_rows >= n;
}

void SampledModel::adopt_scores(const SampledModel& other, bool rescale) {
  row_scale_ = other.row_scale_;
  has_scores_ = other.has_scores_;
  fresh_sum_ = rescale ? 0 : other.fresh_sum_;
  rescale_ = rescale;
}

double SampledModel::price() const {
  const auto d = static_cast<double>(A_.columns()), n = static_cast<double>(A_.rows_global());
  const double share = all_rows_ ? 1 : static_cast<double>(rows_kept_) / n;
  return model_price(share, stored_ / n) + kCholesky * A_.communicator().size() * d * d * d / stored_;
}

void SampledModel::add_all_rows(Part& part, const VectorXd& curvature, const VectorXd& centre) {
  if (ridge_gram_.size() == 0) ridge_gram_ = A_.signed_gram(w2_, VectorXd::Zero(A_.columns())).positive;
  part.gram = A_.signed_gram(curvature, centre).positive + ridge_gram_;
  part.curvature = curvature.sum();
  part.rows = static_cast<double>(A_.rows_local());
  part.scores = static_cast<double>(A_.columns());
}

void SampledModel::add_sampled_rows(Part& part, const VectorXd& curvature, const VectorXd& centre, bool fresh_scores) {
  const VectorXd weights = curvature + w2_;
  if (fresh_scores || !has_scores_) {
    const auto basis = leverage_basis(A_, weights,
                                      {.sketch_rows = options_.sketch_rows,
                                       .nonzeros = options_.nonzeros,
                                       .jl_columns = options_.jl_columns,
                                       .seed = options_.seed,
                                       .iteration = models_});
    row_scale_ = row_norms_squared(A_, basis.N);
    has_scores_ = true;
    fresh_sum_ = 0;
  } else if (rescale_) {  // the weights differ by about a factor
    const double scores = A_.communicator().sum(weights.dot(row_scale_));
    if (scores > 0) row_scale_ *= static_cast<double>(A_.columns()) / scores;
  }
  rescale_ = false;
  const VectorXd scores = weights.cwiseProduct(row_scale_).cwiseMin(1.0);
  const auto kept =
      keep_rows(A_, scores, {.oversampling = options_.oversampling, .seed = options_.seed, .iteration = models_});
  const VectorXd curvature_kept = curvature(kept.rows).cwiseProduct(kept.weights);
  const VectorXd ridge_kept = w2_(kept.rows).cwiseProduct(kept.weights);
  part.gram = sampled_gram(A_, kept, curvature_kept, centre, ridge_kept);
  part.curvature = curvature_kept.sum();
  part.rows = static_cast<double>(kept.rows.size());
  part.scores = scores.sum();
}

std::optional<MatrixXd> SampledModel::factor(const VectorXd& delta, const VectorXd& centre, bool tired) {
  const auto& communicator = A_.communicator();
  const Eigen::Index d = A_.columns(), entries = d * d;
  const VectorXd curvature = delta.cwiseMax(0);
  tired_in_a_row_ = tired ? tired_in_a_row_ + 1 : 0;
  all_rows_ = all_rows_ || tired_in_a_row_ >= kTiredModels;
  Part part;
  if (all_rows_)
    add_all_rows(part, curvature, centre);
  else
    add_sampled_rows(part, curvature, centre, tired || score_sum_ < kStaleScores * fresh_sum_);
  ++models_;

  VectorXd message(entries + 4);
  message << part.gram.reshaped(), part.curvature, part.rows, part.scores, static_cast<double>(A_.entries_local());
  communicator.sum_to_root(span_of(message));
  if (communicator.is_root()) {
    MatrixXd M = message.head(entries).reshaped(d, d);
    const VectorXd scale = M.diagonal() + message[entries] * centre.cwiseAbs2();
    const auto lower = damped_factor(std::move(M), scale);
    if (lower) message.head(entries) = lower->reshaped();
    message[entries] = lower.has_value();
  }
  communicator.broadcast(span_of(message));  // the factor, whether there is one, and three counts
  rows_kept_ = static_cast<std::int64_t>(message[entries + 1]);
  score_sum_ = message[entries + 2];
  stored_ = message[entries + 3];
  if (fresh_sum_ == 0) fresh_sum_ = score_sum_;
  if (!all_rows_) A_.count_reads(message[entries + 1] / static_cast<double>(A_.rows_global()));
  if (message[entries] == 0) return {};
  return message.head(entries).reshaped(d, d);
}

}  // namespace attnreg
