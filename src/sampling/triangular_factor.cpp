#include "sampling/triangular_factor.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <mutex>

#include "algebra/lapack.hpp"

namespace attnreg {

namespace {
constexpr Index kBlock = 32;  // columns of a compact WY block

/// OpenBLAS built for one thread must not be called by two at once: it gives them the same work space.
std::mutex lapack_mutex;
}  // namespace

TriangularFactor::TriangularFactor(Index columns)
    : R_(Eigen::MatrixXd::Zero(columns, columns)), workspace_(2 * kBlock * columns) {}

void TriangularFactor::add(Eigen::MatrixXd& block) {
  const int rows = static_cast<int>(block.rows()), d = static_cast<int>(R_.rows()), trapezoid = 0;
  const int width = std::min(static_cast<int>(kBlock), d);
  int info = 0;
  double* T = workspace_.data();
  const std::lock_guard lock(lapack_mutex);
  dtpqrt_(&rows, &d, &trapezoid, &width, R_.data(), &d, block.data(), &rows, T, &width, T + kBlock * d, &info);
}

TriangularFactor& TriangularFactor::operator+=(const TriangularFactor& other) {
  Eigen::MatrixXd block = other.R_;
  add(block);
  return *this;
}

TriangularFactor triangular_factor(const RowMatrix& A, const Eigen::VectorXd& row_scale) {
  return A.passes().pass(TriangularFactor(A.columns()), [&](const Tile& tile, TriangularFactor& factor) {
    Eigen::MatrixXd block = tile.dense();
    if (row_scale.size() != 0) block = row_scale.segment(tile.first_local(), tile.rows()).asDiagonal() * block;
    factor.add(block);
  });
}

}  // namespace attnreg
