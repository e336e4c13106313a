#include "algebra/dense_factors.hpp"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "algebra/lapack.hpp"

namespace attnreg {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Calls a routine of LAPACK twice: for the size of its work space, and with that. False if it fails, or if that size,
/// 2 d^2 of eigenvectors, is no 32-bit number.
template <class Routine>
bool call_with_work(Routine&& routine) {
  double size = 0;
  int work_size = -1, info = 0;
  routine(&size, &work_size, &info);
  if (info != 0 || !(size <= std::numeric_limits<int>::max())) return false;
  work_size = static_cast<int>(size);
  std::vector<double> work(static_cast<std::size_t>(work_size));
  routine(work.data(), &work_size, &info);
  return info == 0;
}

}  // namespace

bool Cholesky::factor(const MatrixXd& M) {
  if (!M.triangularView<Eigen::Lower>().toDenseMatrix().allFinite()) return false;
  factor_ = M;
  const int order = static_cast<int>(M.rows());
  int info = 0;
  dpotrf_("L", &order, factor_.data(), &order, &info);
  return info == 0 && factor_.diagonal().allFinite();
}

VectorXd Cholesky::solve(const VectorXd& r) const { return solve_columns(r); }

MatrixXd Cholesky::solve_columns(MatrixXd columns) const {
  const int order = static_cast<int>(factor_.rows()), count = static_cast<int>(columns.cols());
  int info = 0;
  dpotrs_("L", &order, &count, factor_.data(), &order, columns.data(), &order, &info);
  return columns;
}

SymmetricEigen symmetric_eigen(MatrixXd matrix, bool with_vectors) {
  const int order = static_cast<int>(matrix.rows());
  const char* job = with_vectors ? "V" : "N";
  SymmetricEigen result{false, VectorXd(order), {}};
  if (order > 0 && matrix.allFinite()) {
    const int integers_size = with_vectors ? 3 + 5 * order : 1;
    std::vector<int> integers(static_cast<std::size_t>(integers_size));
    const bool done = call_with_work([&](double* work, const int* size, int* info) {
      dsyevd_(job, "L", &order, matrix.data(), &order, result.values.data(), work, size, integers.data(),
              &integers_size, info);
    });
    result.finite = done && result.values.allFinite() && matrix.allFinite();
  }
  if (with_vectors) result.vectors = std::move(matrix);
  if (!result.finite) {
    result.values.setConstant(kNaN);
    result.vectors.setConstant(kNaN);
  }
  return result;
}

double eigenvalue_rounding(Index d, double size) {
  return static_cast<double>(std::max<Index>(d, 16)) * std::numeric_limits<double>::epsilon() * size;
}

Index ThinSvd::rank() const {
  if (values.size() == 0) return 0;
  const auto longest = static_cast<double>(std::max(U.rows(), V.rows()));
  return (values.array() > longest * std::numeric_limits<double>::epsilon() * values[0]).count();
}

ThinSvd thin_svd(MatrixXd M) {
  const int m = static_cast<int>(M.rows()), n = static_cast<int>(M.cols()), k = std::min(m, n);
  ThinSvd svd{VectorXd(k), MatrixXd(m, k), {}};
  MatrixXd V_transposed(k, n);
  bool finite = M.allFinite();
  if (finite && k > 0) {
    std::vector<int> integers(static_cast<std::size_t>(8 * k));
    finite = call_with_work([&](double* work, const int* size, int* info) {
      dgesdd_("S", &m, &n, M.data(), &m, svd.values.data(), svd.U.data(), &m, V_transposed.data(), &k, work, size,
              integers.data(), info);
    });
    finite = finite && svd.values.allFinite() && svd.U.allFinite() && V_transposed.allFinite();
  }
  svd.V = V_transposed.transpose();
  if (finite) return svd;
  return {VectorXd::Constant(k, kNaN), MatrixXd::Constant(m, k, kNaN), MatrixXd::Constant(n, k, kNaN)};
}

MatrixXd pseudo_solution(const MatrixXd& M, const MatrixXd& R) {
  const SymmetricEigen eigen = symmetric_eigen(M, true);
  if (!eigen.finite) return MatrixXd::Constant(R.rows(), R.cols(), std::numeric_limits<double>::quiet_NaN());
  const Index last = eigen.values.size() - 1;
  const double least = static_cast<double>(last + 1) * std::numeric_limits<double>::epsilon() * eigen.values[last];
  VectorXd inverse = VectorXd::Zero(last + 1);
  for (Index k = 0; k <= last; ++k)
    if (eigen.values[k] > least) inverse[k] = 1 / eigen.values[k];
  return times(eigen.vectors, inverse.asDiagonal() * transposed_times(eigen.vectors, R));
}

MatrixXd least_squares(MatrixXd A, const MatrixXd& B) {
  const ThinSvd svd = thin_svd(std::move(A));
  if (!svd.values.allFinite() || !B.allFinite()) return MatrixXd::Constant(svd.V.rows(), B.cols(), kNaN);
  const Index rank = svd.rank();
  const MatrixXd parts = svd.U.leftCols(rank).transpose() * B;
  return svd.V.leftCols(rank) * (svd.values.head(rank).cwiseInverse().asDiagonal() * parts);
}

MatrixXd orthonormal_columns(MatrixXd M) {
  const int m = static_cast<int>(M.rows()), k = static_cast<int>(M.cols());
  VectorXd tau(k);
  const auto triangle = [&](double* work, const int* size, int* info) {
    dgeqrf_(&m, &k, M.data(), &m, tau.data(), work, size, info);
  };
  const auto columns = [&](double* work, const int* size, int* info) {
    dorgqr_(&m, &k, &k, M.data(), &m, tau.data(), work, size, info);
  };
  bool made = M.allFinite() && call_with_work(triangle);
  const VectorXd diagonal = M.diagonal();
  made = made && M.allFinite() && call_with_work(columns);
  if (!made || !M.allFinite()) return MatrixXd::Constant(m, k, kNaN);
  return M * (diagonal.array() < 0).select(VectorXd::Constant(k, -1), VectorXd::Ones(k)).asDiagonal();
}

VectorXd positive_scale(const VectorXd& scale) {
  const double largest = scale.maxCoeff();
  return (scale.array() > 0).select(scale, largest > 0 ? largest : 1.0);
}

VectorXd without_dependent(const VectorXd& pivots, double ridge, const VectorXd& scale) {
  constexpr double kDependent = 20;  // pivots of so many ridges belong to columns that depend on earlier ones
  return (pivots.array().square() <= kDependent * ridge * scale.array()).select(scale.cwiseSqrt(), pivots);
}

namespace {

/// The same for a factor L of M + ridge diag(scale), exactly: column j of L^-T is a v with v^T (M + ridge) v = 1, and
/// the column depends on earlier ones if the ridge is a twentieth of that, or more.
VectorXd without_dependent_columns(const MatrixXd& L, double ridge, const VectorXd& scale) {
  constexpr double kSafe = 1e-10;  // of squared pivots: with larger ones no ridge matters
  constexpr double kShare = 0.05;
  VectorXd pivots = L.diagonal();
  if ((pivots.array().square() > kSafe * scale.array()).all()) return pivots;
  const MatrixXd inverse = L.triangularView<Eigen::Lower>().solve(MatrixXd::Identity(L.rows(), L.cols()));
  const VectorXd shares = ridge * inverse.cwiseAbs2() * scale;
  for (Eigen::Index j = 0; j < pivots.size(); ++j)
    if (!(shares[j] < kShare)) pivots[j] = std::sqrt(scale[j]);
  return pivots;
}

}  // namespace

DampedFactor damped_factor(MatrixXd M, const VectorXd& scale) {
  if (!M.allFinite()) return {};
  const VectorXd diagonal = M.diagonal(), positive = positive_scale(scale);
  Cholesky cholesky;
  const double ridge = damping([&](double tried) {
    M.diagonal() = diagonal + tried * positive;
    return cholesky.factor(M);
  });
  if (ridge == 0) return {};
  MatrixXd L = cholesky.lower();
  const VectorXd pivots = without_dependent_columns(L, ridge, positive);
  const bool singular = pivots != L.diagonal();
  L.diagonal() = pivots;
  return {ridge, singular, std::move(L)};
}

}  // namespace attnreg
