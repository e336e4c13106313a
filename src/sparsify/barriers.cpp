#include "sparsify/barriers.hpp"

#include <cmath>
#include <utility>

#include "algebra/dense_factors.hpp"

namespace attnreg {

using Eigen::ArrayXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// In exact arithmetic the best column has L >= U. Both are sums of positive terms with a relative rounding error near
// n eps, and the smallest gap measured in thousands of steps was -1e-12.
constexpr double kGapTolerance = 1e-10;

double barrier_degree(double epsilon) {
  const double root = (1 + std::sqrt((1 - epsilon) * (1 + epsilon))) / epsilon;
  return root * root;
}

// l = -n / epsL, u = n / epsU with epsL = 1 / sqrt df, epsU = (sqrt df - 1) / (df + sqrt df): then Phi_l = epsL and
// Phi^u = epsU for M = 0.
Barriers::Barriers(Eigen::Index n, double degree) : M_(MatrixXd::Zero(n, n)) {
  const double root = std::sqrt(degree), size = static_cast<double>(n);
  lower_ = -size * root;
  upper_ = size * (degree + root) / (root - 1);
  upper_step_ = (root + 1) / (root - 1);
}

void Barriers::refresh() const {
  if (std::exchange(fresh_, true)) return;
  SymmetricEigen eigen = symmetric_eigen(M_, true);
  eigenvalues_ = std::move(eigen.values);
  eigenvectors_ = std::move(eigen.vectors);
}

bool Barriers::advance() {
  refresh();
  const double lower = lower_ + 1, upper = upper_ + upper_step_;
  const ArrayXd above = upper - eigenvalues_.array(), below = eigenvalues_.array() - lower;
  const ArrayXd above_before = upper_ - eigenvalues_.array(), below_before = eigenvalues_.array() - lower_;
  if (!((above_before > 0).all() && (below > 0).all())) return false;
  const double upper_drop = (upper_step_ / (above * above_before)).sum();
  const double lower_rise = (1 / (below * below_before)).sum();
  upper_weights_ = 1 / (above.square() * upper_drop) + 1 / above;
  lower_weights_ = 1 / (below.square() * lower_rise) - 1 / below;
  lower_ = lower;
  upper_ = upper;
  return true;
}

MatrixXd Barriers::gain() const {
  const MatrixXd scaled = eigenvectors_ * (lower_weights_ - upper_weights_).asDiagonal();
  const MatrixXd G = scaled * eigenvectors_.transpose();
  return (G + G.transpose()) / 2;
}

double Barriers::add(const VectorXd& v) {
  const VectorXd squares = (eigenvectors_.transpose() * v).cwiseAbs2();
  const double L = lower_weights_.dot(squares), U = upper_weights_.dot(squares), t = 2 / (L + U);
  if (!(L - U >= -kGapTolerance * (L + U)) || !(t > 0) || !std::isfinite(t)) return 0;
  M_ += t * v * v.transpose();
  fresh_ = false;
  return t;
}

Barriers::Spectrum Barriers::spectrum() const {
  refresh();
  return {eigenvalues_[0], eigenvalues_[eigenvalues_.size() - 1]};
}

}  // namespace attnreg
