#include "algebra/pivoted_factor.hpp"

#include <algorithm>
#include <cmath>

#include "algebra/lapack.hpp"

namespace attnreg {

using Eigen::MatrixXd;
using Eigen::VectorXd;

double scale_for(double norm) {
  if (!(norm > 0)) return 0;
  int exponent = 0;
  std::frexp(norm, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -1020, 1000));  // finite, and with all digits
}

namespace {

/// The factor whose leading `rank` rows and columns are those of `R` (above the diagonal), with a positive diagonal.
/// pivots: LAPACK's, or none.
PivotedFactor leading_part(const MatrixXd& R, Index rank, VectorXd column_scale, const std::vector<int>& pivots = {}) {
  PivotedFactor factor;
  factor.R11 = R.topLeftCorner(rank, rank).triangularView<Eigen::Upper>();
  for (Index j = 0; j < rank; ++j)
    if (factor.R11(j, j) < 0) factor.R11.row(j) *= -1;
  factor.finite = factor.R11.allFinite();
  if (!factor.finite) return {};
  for (Index j = 0; j < rank; ++j)
    factor.pivots.push_back(pivots.empty() ? j : pivots[static_cast<std::size_t>(j)] - 1);
  factor.column_scale = std::move(column_scale);
  return factor;
}

/// Whether R, upper triangular, is so far from singular that no column can count as dependent.
bool is_regular(const MatrixXd& R, double tolerance) {
  const int d = static_cast<int>(R.rows());
  VectorXd work(3 * d);
  std::vector<int> integers(static_cast<std::size_t>(d));
  double reciprocal_condition = 0;
  int info = 0;
  dtrcon_("1", "U", "N", &d, R.data(), &d, &reciprocal_condition, work.data(), integers.data(), &info);
  return reciprocal_condition > tolerance;
}

/// Scales rows and columns of a Gram matrix by powers of two, which are returned, to a diagonal in [1/4, 1).
VectorXd scale_gram(MatrixXd& gram) {
  VectorXd scale(gram.cols());
  for (Index j = 0; j < gram.cols(); ++j) scale[j] = scale_for(std::sqrt(gram(j, j)));
  gram = scale.asDiagonal() * gram * scale.asDiagonal();
  return scale;
}

/// Overwrites the tall M by its factor R without pivoting, which is blocked and several times faster; pivoting R, where
/// that is needed at all, then finds the same columns as pivoting M, as both have the same inner products.
void reduce_to_triangle(MatrixXd& M) {
  const int m = static_cast<int>(M.rows()), d = static_cast<int>(M.cols());
  int info = 0;
  const int work_size = 64 * d;
  VectorXd tau(d), work(work_size);
  dgeqrf_(&m, &d, M.data(), &m, tau.data(), work.data(), &work_size, &info);
  M = MatrixXd(M.topRows(d).triangularView<Eigen::Upper>());
}

/// C Pi [rows; 0].
MatrixXd spread_rows(const MatrixXd& rows, const PivotedFactor& factor) {
  MatrixXd N = MatrixXd::Zero(factor.column_scale.size(), rows.cols());
  for (Index j = 0; j < factor.rank(); ++j) {
    const Index column = factor.pivots[static_cast<std::size_t>(j)];
    N.row(column) = factor.column_scale[column] * rows.row(j);
  }
  return N;
}

}  // namespace

PivotedFactor pivoted_qr(MatrixXd M, double tolerance) {
  if (!M.allFinite()) return {};  // LAPACK would not tell
  VectorXd column_scale(M.cols());
  for (Index j = 0; j < M.cols(); ++j) {
    const double norm = M.col(j).stableNorm();
    if (!std::isfinite(norm)) return {};
    column_scale[j] = scale_for(norm);
    M.col(j) *= column_scale[j];
  }
  if (M.rows() >= M.cols()) reduce_to_triangle(M);
  const int m = static_cast<int>(M.rows()), d = static_cast<int>(M.cols()), work_size = 64 * (d + 1) + 2 * d;
  if (m == d && M.allFinite() && is_regular(M, tolerance)) return leading_part(M, d, std::move(column_scale));
  std::vector<int> pivots(static_cast<std::size_t>(d));
  VectorXd tau(d), work(work_size);
  int info = 0;
  dgeqp3_(&m, &d, M.data(), &m, pivots.data(), tau.data(), work.data(), &work_size, &info);
  if (!M.allFinite()) return {};
  Index rank = 0;
  while (rank < std::min(m, d) && std::abs(M(rank, rank)) > tolerance * std::abs(M(0, 0))) ++rank;
  return leading_part(M, rank, std::move(column_scale), pivots);
}

PivotedFactor pivoted_cholesky(MatrixXd gram, double tolerance) {
  if (!gram.allFinite()) return {};
  VectorXd column_scale = scale_gram(gram);
  const int d = static_cast<int>(gram.rows());
  const double threshold = tolerance * gram.diagonal().maxCoeff();
  std::vector<int> pivots(static_cast<std::size_t>(d));
  VectorXd work(2 * d);
  int rank = 0, info = 0;
  if (threshold > 0) dpstrf_("U", &d, gram.data(), &d, pivots.data(), &rank, &threshold, work.data(), &info);
  return leading_part(gram, rank, std::move(column_scale), pivots);
}

PivotedFactor regular_cholesky(MatrixXd gram, double tolerance) {
  if (!gram.allFinite()) return {};
  VectorXd column_scale = scale_gram(gram);
  const int d = static_cast<int>(gram.rows());
  int info = 0;
  dpotrf_("U", &d, gram.data(), &d, &info);
  if (info != 0 || !gram.allFinite() || !is_regular(gram, std::sqrt(tolerance))) return {};
  return leading_part(gram, d, std::move(column_scale));
}

MatrixXd PivotedFactor::solve(const MatrixXd& G) const {
  return spread_rows(R11.triangularView<Eigen::Upper>().solve(G), *this);
}

MatrixXd PivotedFactor::inverse() const {
  MatrixXd inverse_of_R = R11;
  const int order = static_cast<int>(rank());
  int info = 0;
  if (order > 0) dtrtri_("U", "N", &order, inverse_of_R.data(), &order, &info);
  return spread_rows(inverse_of_R, *this);
}

}  // namespace attnreg
