#include "objective/sampled_model.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "algebra/scalapack.hpp"
#include "algebra/shared_factor.hpp"
#include "attnreg/leverage.hpp"
#include "ranks/once_in_process.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"
#include "sampling/leverage_basis.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

namespace {

constexpr int kTiredModels = 3;        // in a row: sampling does not serve here
constexpr double kStaleScores = 0.25;  // of their sum when they were made: below, they are too small by now

constexpr double kRough = 10;  // c of `use_few_rows`

constexpr double kCholesky = 0.03;   // of a flop of a Cholesky factor on one core, as `gram_price`
constexpr double kParallelLoss = 2;  // of ScaLAPACK's factorization

/// Of a Gram matrix of this share of the rows with so many numbers each.
double model_price(double share, double row) { return share * (1 + gram_price * row); }

}  // namespace

double typical_products(double c) {
  constexpr double kPerfect = 17;  // with a perfect model
  return kPerfect * (std::sqrt(c) + 1) / (std::sqrt(c) - 1);
}

double automatic_oversampling(std::int64_t rows, Eigen::Index columns) {
  constexpr Eigen::Index kWide = 256;
  if (columns <= kWide) return 30;
  const auto d = static_cast<double>(columns), n = static_cast<double>(rows);
  const auto work = [&](double c) {
    return typical_models * model_price(std::min(1.0, 1.2 * c * d / n), d) + typical_products(c);
  };
  constexpr std::array candidates{30.0, 20.0, 15.0, 10.0};
  return *std::min_element(candidates.begin(), candidates.end(), [&](double a, double b) { return work(a) < work(b); });
}

SampledModel::SampledModel(const RowMatrix& A, RidgeWeights w2, const SamplingOptions& options,
                           std::shared_ptr<const ProcessGrid> grid, const ColumnTerms* column_terms)
    : A_(A), w2_(std::move(w2)), column_terms_(column_terms), options_(options), grid_(std::move(grid)) {
  const auto d = static_cast<double>(A.columns()), n = static_cast<double>(A.rows_global());
  const double sketch_rows = options.sketch_rows > 0 ? static_cast<double>(options.sketch_rows) : 6 * d;
  if (options_.oversampling == 0)
    options_.oversampling = A.is_sparse() ? sparse_oversampling : automatic_oversampling(A.rows_global(), A.columns());
  all_rows_ = all_rows_at_first_ = options_.oversampling * d >= n || sketch_rows >= n;
}

void SampledModel::forget() {
  all_rows_ = all_rows_at_first_;
  row_scale_.resize(0);
  has_scores_ = rescale_ = is_rough_ = singular_ = false;
  models_ = 0;
  models_made_ = 0;
  tired_in_a_row_ = 0;
  rows_kept_ = 0;
  ridge_ = fresh_sum_ = 0;
  score_sum_ = std::numeric_limits<double>::infinity();
}

void SampledModel::adopt_scores(const SampledModel& other, bool rescale) {
  row_scale_ = other.row_scale_;
  has_scores_ = other.has_scores_;
  fresh_sum_ = rescale ? 0 : other.fresh_sum_;
  rescale_ = rescale;
}

void SampledModel::adopt_scores(VectorXd row_scale) {
  row_scale_ = std::move(row_scale);
  has_scores_ = true;
  fresh_sum_ = 0;
  rescale_ = false;
}

void SampledModel::use_few_rows(VectorXd row_scale) {
  if (static_cast<double>(A_.rows_global()) < 2 * kRough * static_cast<double>(A_.columns())) return;
  adopt_scores(std::move(row_scale));
  all_rows_ = false;
  is_rough_ = true;
}

double SampledModel::price() const {
  const auto d = static_cast<double>(A_.columns()), n = static_cast<double>(A_.rows_global());
  const double share = all_rows_ ? 1 : static_cast<double>(rows_kept_) / n;
  const double cores = grid_ ? kParallelLoss : A_.communicator().size();  // that are busy or idle for a core's work
  return model_price(share, stored_ / n) + kCholesky * cores * d * d * d / stored_;
}

void SampledModel::make_scores(const VectorXd& weights) {
  LeverageOptions leverage{.sketch_rows = options_.sketch_rows,
                           .nonzeros = options_.nonzeros,
                           .jl_columns = options_.jl_columns,
                           .seed = options_.seed,
                           .iteration = models_,
                           .linear_solver = {.kind = LinearSolver::rank0}};
  const auto basis = grid_ ? distributed_basis(A_, weights, leverage, grid_) : leverage_basis(A_, weights, leverage);
  row_scale_ = row_norms_squared(A_, basis.N);
  has_scores_ = true;
  fresh_sum_ = 0;
}

SampledModel::Part SampledModel::sampled_rows(const WeightedRows& rows, bool fresh_scores) {
  VectorXd scores = rows.curvature + all_w2();  // the weights first
  if (fresh_scores || !has_scores_) {
    make_scores(scores);
  } else if (rescale_ || is_rough_) {  // the weights differ by about a factor
    const double sum = A_.communicator().sum(scores.dot(row_scale_));
    if (sum > 0) row_scale_ *= static_cast<double>(A_.columns()) / sum;
  }
  rescale_ = false;
  scores = scores.cwiseProduct(row_scale_).cwiseMin(1.0);
  const double c = is_rough_ ? kRough : options_.oversampling;
  auto kept = keep_rows(A_, scores, {.oversampling = c, .seed = options_.seed, .iteration = models_});
  WeightedRows some = rows.choose(std::move(kept.rows), kept.weights);
  some.ridge = all_w2()(*some.chosen).cwiseProduct(kept.weights);
  return {std::move(some), scores.sum()};
}

SampledModel::Part SampledModel::choose_rows(WeightedRows rows, bool tired) {
  tired_in_a_row_ = tired ? tired_in_a_row_ + 1 : 0;
  all_rows_ = all_rows_ || tired_in_a_row_ >= kTiredModels;
  const bool fresh_scores = tired || (!is_rough_ && score_sum_ < kStaleScores * fresh_sum_);
  Part part;
  if (all_rows_) {
    rows.ridge = all_w2();
    part = {std::move(rows), static_cast<double>(A_.columns())};
  } else {
    part = sampled_rows(rows, fresh_scores);
  }
  ++models_;
  return part;
}

/// Local. This rank's part of M, its lower triangle by rows. What all rows add with their ridge stays the same.
void SampledModel::fill_gram(const WeightedRows& rows, const VectorXd& centre, std::span<double> lower) {
  if (!all_rows_) {
    std::ranges::fill(lower, 0.0);
    return add_signed_gram(A_, rows, centre, lower.data(), nullptr, OnStop::leave);
  }
  if (ridge_gram_.size() == 0) {
    ridge_gram_ = RowMajorMatrix::Zero(A_.columns(), A_.columns());
    add_signed_gram(A_, {rows.ridge}, {}, ridge_gram_.data(), nullptr, OnStop::leave);
  }
  std::ranges::copy(span_of(ridge_gram_), lower.begin());
  add_signed_gram(A_, {rows.curvature, {}, rows.coupling, rows.self}, centre, lower.data(), nullptr, OnStop::leave);
}

/// What is known of the last model: sums over all ranks.
void SampledModel::learn(double rows, double scores, double stored) {
  rows_kept_ = static_cast<std::int64_t>(rows);
  models_made_ += rows / static_cast<double>(A_.rows_global());
  score_sum_ = scores;
  stored_ = stored;
  if (fresh_sum_ == 0) fresh_sum_ = score_sum_;
}

std::optional<Preconditioner> SampledModel::preconditioner(WeightedRows rows, const VectorXd& centre, bool tired) {
  if (grid_) return distributed(std::move(rows), centre, tired);
  auto L = factor(std::move(rows), centre, tired);
  if (!L) return {};
  return shared_preconditioner(A_.communicator(), Preconditioner(std::move(*L), singular_));
}

std::optional<MatrixXd> SampledModel::factor(WeightedRows rows, const VectorXd& centre, bool tired) {
  const auto& communicator = A_.communicator();
  const Eigen::Index d = A_.columns(), entries = d * d;
  const Part part = choose_rows(std::move(rows), tired);
  VectorXd sums(entries + 6);
  fill_gram(part.rows, centre, span_of(sums).first(static_cast<std::size_t>(entries)));
  sums.tail<6>() << uncentred_sum(part.rows), part.count(), part.scores, static_cast<double>(A_.entries_local()), 0.0,
      RootClock::part(communicator, 0);
  communicator.sum_to_root(span_of(sums));
  const auto shared = once_in_process(communicator, [&] { return std::make_shared<VectorXd>(std::move(sums)); });
  VectorXd& message = *shared;
  if (communicator.is_root() && !RootClock::tells_of_stop(message[entries + 5])) {
    MatrixXd M = full_symmetric(message.data(), d);
    if (column_terms_ != nullptr && !column_terms_->is_zero()) M += column_terms_->model();
    const VectorXd scale = M.diagonal() + message[entries] * centre.cwiseAbs2();
    const auto damped = damped_factor(std::move(M), scale);
    if (damped.ridge > 0) message.head(entries) = damped.L.reshaped();
    message[entries] = damped.ridge;
    message[entries + 4] = damped.singular ? 1 : 0;
  }
  communicator.broadcast(span_of(message));  // the factor, its ridge, three counts, singular, whether to stop
  RootClock::seconds_of(communicator, message[entries + 5]);
  if (communicator.is_stopped()) return {};
  singular_ = message[entries + 4] != 0;
  learn(message[entries + 1], message[entries + 2], message[entries + 3]);
  if (!all_rows_) A_.passes().count_reads(message[entries + 1] / static_cast<double>(A_.rows_global()));
  ridge_ = message[entries];
  if (ridge_ == 0) return {};
  return communicator.leads_process() ? MatrixXd(message.head(entries).reshaped(d, d)) : MatrixXd();
}

std::optional<VectorXd> SampledModel::direction_above(VectorXd nu, const VectorXd& centre,
                                                      const Preconditioner& M) const {
  constexpr double kHalf = 0.5, kOversampling = 6;
  constexpr int kPowerSteps = 30;
  const auto& communicator = A_.communicator();
  const Index d = A_.columns();
  WeightedRows rows{std::move(nu)};
  if (has_scores_) {
    VectorXd scores = rows.curvature.cwiseProduct(row_scale_);
    if (communicator.sum(scores.sum()) < kHalf) return std::nullopt;
    scores = scores.cwiseMin(1.0);
    auto kept = keep_rows(A_, scores, {.oversampling = kOversampling, .seed = options_.seed, .iteration = ~models_});
    rows = rows.choose(std::move(kept.rows), kept.weights);
  }
  VectorXd v = M.whiten(VectorXd::LinSpaced(d, 1, 1.5));  // rich in every direction
  if (grid_) return v;                                    // no rank has room for N
  const OnStop on_stop = on_stop_in_gram(A_);
  MatrixXd N = positive_gram(A_, rows, centre, on_stop);
  communicator.sum_to_root(span_of(N));
  if (is_left(A_, on_stop)) return std::nullopt;
  double largest = 0;
  VectorXd u = VectorXd::LinSpaced(d, 1, 1.5).normalized();
  if (communicator.is_root()) {
    for (int k = 0; k < kPowerSteps; ++k) {
      u = M.unwhiten(M.solve(N * M.whiten(u)));
      largest = u.norm();
      if (!(largest > 0)) break;
      u /= largest;
    }
  }
  VectorXd message(d + 1);
  message << u, largest;
  communicator.broadcast(span_of(message));
  if (!(message[d] >= kHalf)) return std::nullopt;
  return M.whiten(message.head(d));
}

std::optional<Preconditioner> SampledModel::distributed(WeightedRows rows, const VectorXd& centre, bool tired) {
  const Part part = choose_rows(std::move(rows), tired);
  DistributedMatrix M = distributed_gram(A_, grid_, part.rows, centre, OnStop::leave);
  if (column_terms_ != nullptr && !column_terms_->is_zero())
    M.for_each([&](Index i, Index j, double& entry) { entry += column_terms_->model(i, j); });
  std::array sums{uncentred_sum(part.rows), part.count(), part.scores, static_cast<double>(A_.entries_local()),
                  RootClock::part(A_.communicator(), 0)};
  A_.communicator().sum(sums);
  RootClock::seconds_of(A_.communicator(), sums[4]);
  if (A_.communicator().is_stopped()) return {};
  learn(sums[1], sums[2], sums[3]);
  A_.passes().count_reads(gram_reads(A_.columns()) * sums[1] / static_cast<double>(A_.rows_global()));
  const VectorXd diagonal = M.diagonal(), scale = positive_scale(diagonal + sums[0] * centre.cwiseAbs2());
  ridge_ = 0;
  if (!M.is_finite()) return {};
  DistributedMatrix L(grid_, A_.columns(), A_.columns());
  ridge_ = damping([&](double tried) {
    L.local() = M.local();
    L.set_diagonal(diagonal + tried * scale);
    return scalapack::factor_cholesky(L);
  });
  if (ridge_ == 0) return {};
  const VectorXd factored = L.diagonal(), pivots = without_dependent(factored, ridge_, scale);
  L.set_diagonal(pivots);
  return Preconditioner(std::make_shared<const DistributedFactor>(std::move(L)), pivots != factored);
}

}  // namespace attnreg
