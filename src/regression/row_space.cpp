#include "regression/row_space.hpp"

#include <algorithm>
#include <string>

#include "algebra/dense_factors.hpp"
#include "certificate/certify.hpp"
#include "losses/losses.hpp"
#include "newton/progress.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "regression/start_point.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

bool solves_in_row_space(std::int64_t rows, std::int64_t columns, const RegressionOptions& options) {
  constexpr std::int64_t kSmall = 512;  // a matrix of 2 MB
  return columns > rows && columns > kSmall && options.method != Method::sketched_newton && !(options.epsilon > 0) &&
         options.certificate != CertificateLevel::full;
}

RowSpace::RowSpace(std::shared_ptr<const ScaledColumns> columns, bool sees_shift, bool sees_level)
    : columns_(std::move(columns)) {
  const RowMatrix& A = columns_->A();
  const Communicator& communicator = A.communicator();
  const Index n = static_cast<Index>(A.rows_global()), d = A.columns();
  const double numbers = static_cast<double>(n) * static_cast<double>(d);
  require_memory(communicator, 8 * (4 * numbers / communicator.ranks_on_node() + static_cast<double>(n * n)),
                 "A, " + std::to_string(n) + " x " + std::to_string(d) +
                     ", is solved in its row space, for which rank 0 "
                     "holds it four times");
  const VectorXd& ridge = columns_->ridge();
  metric_ = ridge.size() > 0 ? VectorXd((ridge / ridge.maxCoeff()).cwiseSqrt()) : columns_->scale();
  RowMajorMatrix rows;
  communicator.agree([&] { rows = dense_rows(A, 0, A.rows_local()); });
  const LogitOffsets& offsets = columns_->logit_offsets();
  for (Index i = 0; i < rows.rows(); ++i)
    if (offsets.is_masked(i)) rows.row(i).setZero();
  auto gathered = communicator.gather_to_root(span_of(rows));
  std::vector<double> unmasked;
  if (offsets.mask_rows())
    unmasked = communicator.gather_to_root(span_of(offsets.without_masked(VectorXd::Ones(rows.rows()))));
  rows.resize(0, 0);

  MatrixXd small;  // (V Sigma)_rows, and the offset as a last row
  communicator.agree([&] {
    if (!communicator.is_root()) return;
    MatrixXd M(d, n + 1);
    for (Index i = 0; i < n; ++i)
      M.col(i) = Eigen::Map<const VectorXd>(gathered.data() + i * d, d).cwiseQuotient(metric_);
    std::vector<double>().swap(gathered);
    VectorXd level = columns_->offset().cwiseQuotient(metric_);  // what the columns were centred about, and are now
    if (!sees_shift) {
      VectorXd mean = M.leftCols(n).rowwise().mean();
      if (unmasked.empty()) {
        M.leftCols(n).colwise() -= mean;
      } else {  // masked rows are 0, and stay so
        const Eigen::Map<const VectorXd> ones(unmasked.data(), n);
        mean *= static_cast<double>(n) / ones.sum();
        M.leftCols(n) -= mean * ones.transpose();
      }
      level += mean;
    }
    if (sees_level && !level.isZero(0)) {
      const double longest = M.leftCols(n).colwise().norm().maxCoeff();  // as long as that: a direction among others
      M.col(n) = level * (longest > 0 ? longest / level.norm() : 1);
    } else {
      M.conservativeResize(d, n);
    }
    ThinSvd svd = thin_svd(std::move(M));
    if (!svd.values.allFinite())
      throw InvalidArgument("A has rows whose norms overflow, in columns of equal size; scale its columns");
    const Index r = std::max<Index>(svd.rank(), 1);
    U_ = svd.U.leftCols(r);
    small = MatrixXd::Zero(n + 1, r);
    small.topRows(n) = svd.V.topLeftCorner(n, r) * svd.values.head(r).asDiagonal();
    small.row(n) = level.transpose() * U_;
  });
  rank_ = static_cast<Index>(communicator.max(static_cast<std::int64_t>(small.cols())));
  if (!communicator.is_root()) small.resize(n + 1, rank_);
  communicator.broadcast(span_of(small));
  const RowMajorMatrix own = small.middleRows(static_cast<Index>(A.first_row()), A.rows_local());
  auto reduced =
      std::make_shared<ScaledColumns>(RowMatrix(communicator, A.partition(), own), VectorXd(small.row(n).transpose()));
  if (ridge.size() > 0) reduced->add_ridge(ridge.maxCoeff(), false);
  reduced->add_to_logits(columns_->logit_offsets());
  reduced_ = std::move(reduced);
}

RegressionOptions RowSpace::options(const RegressionOptions& options) const {
  RegressionOptions own = options;
  const VectorXd ratio = metric_.cwiseQuotient(columns_->scale());  // |g|_s / |g_0|_s is at most that of y by max / min
  own.newton.relative_tolerance *= ratio.minCoeff() / ratio.maxCoeff();
  if (options.start != Start::given) return own;
  own.x0 = VectorXd::Zero(rank_);
  const VectorXd scaled = options.x0.cwiseQuotient(columns_->factor()).cwiseProduct(metric_);
  if (columns_->A().communicator().is_root()) own.x0 = U_.transpose() * scaled;
  columns_->A().communicator().broadcast(span_of(own.x0));
  return own;
}

void RowSpace::finish(const VectorXd& b, const RidgeWeights& w, const RegressionOptions& options,
                      RegressionResult& result) const {
  const Communicator& communicator = columns_->A().communicator();
  VectorXd x = VectorXd::Zero(columns_->A().columns());
  if (communicator.is_root()) x = (U_ * result.x).cwiseQuotient(metric_);
  communicator.broadcast(span_of(x));

  RegressionObjective objective(columns_, b, w, make_loss(options.loss), options.sampling);
  Point point = objective.evaluate(x);
  NewtonSummary summary = result.summary;
  if (columns_->ridge().size() > 0) {  // |g_y| is not |g|_s then
    const VectorXd g = objective.evaluate(VectorXd::Zero(x.size())).gradient;
    const double of_y = g.cwiseQuotient(metric_).norm();
    if (of_y > 0) summary.gradient_reference *= objective.norm(g) / of_y;
  }
  measure(objective, point, summary);
  summary.reads_of_a += result.summary.reads_of_a;
  summary.collectives += result.summary.collectives;
  summary.seconds += result.summary.seconds;
  if (is_converged(summary) && summary.relative_gradient > options.newton.relative_tolerance) {
    summary.gradient_floor = objective.gradient_floor(point, summary.scaled_gradient);
    summary.termination =
        summary.scaled_gradient <= summary.gradient_floor ? Termination::converged_rounding : Termination::stagnated;
  }
  result.summary = summary;
  const double seconds = result.certificate.seconds;
  const std::string no_minimiser = result.certificate.no_minimiser;
  const bool exists = result.certificate.minimiser_exists;
  result.certificate =
      certify(objective, point, {.level = options.certificate, .gradient_reference = summary.gradient_reference});
  result.certificate.no_minimiser = no_minimiser;
  result.certificate.minimiser_exists = exists;
  result.certificate.seconds += seconds;
  result.x = x.cwiseProduct(columns_->factor());
  result.gradient = point.gradient.cwiseQuotient(columns_->factor());
  result.notes.insert(result.notes.end(), columns_->notes().begin(), columns_->notes().end());
  result.warnings.insert(result.warnings.end(), columns_->warnings().begin(), columns_->warnings().end());
  result.notes.push_back("A has more columns than rows: solved in the " + std::to_string(rank_) +
                         " dimensions of its row space" +
                         (columns_->ridge().size() > 0 ? ""
                                                       : "; of all x with this L the least is given, in columns of "
                                                         "equal size"));
}

}  // namespace attnreg
