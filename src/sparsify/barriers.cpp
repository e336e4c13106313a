#include "sparsify/barriers.hpp"

#include <cmath>
#include <utility>

#include "algebra/blas_products.hpp"
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
  take_candidates(v);
  return best_candidate() < 0 ? 0 : add_candidate(0);
}

void Barriers::take_candidates(MatrixXd columns) {
  candidates_ = std::move(columns);
  rotated_ = transposed_times(eigenvectors_, candidates_);
  squares_ = rotated_.cwiseAbs2();
  lower_sums_ = squares_.transpose() * lower_weights_;
  upper_sums_ = squares_.transpose() * upper_weights_;
  added_.resize(M_.rows(), 0);
  added_weights_.resize(0);
  gap_ = eigenvalues_[0] - lower_;
}

Eigen::Index Barriers::best_candidate() const {
  Eigen::Index best = -1;
  for (Eigen::Index c = 0; c < lower_sums_.size(); ++c) {
    const double L = lower_sums_[c], U = upper_sums_[c], t = 2 / (L + U);
    if (!(L - U >= -kGapTolerance * (L + U)) || !(t > 0) || !std::isfinite(t)) continue;
    if (best < 0 || L - U > lower_sums_[best] - upper_sums_[best]) best = c;
  }
  return best;
}

double Barriers::add_candidate(Eigen::Index candidate) {
  const double t = 2 / (lower_sums_[candidate] + upper_sums_[candidate]);
  M_ += t * candidates_.col(candidate) * candidates_.col(candidate).transpose();
  fresh_ = false;
  const Eigen::Index k = added_.cols();
  added_.conservativeResize(Eigen::NoChange, k + 1);
  added_.col(k) = rotated_.col(candidate);
  added_weights_.conservativeResize(k + 1);
  added_weights_[k] = t;
  return t;
}

/// S; empty if it is not definite.
MatrixXd Barriers::inner_inverse(double sign, const ArrayXd& D) const {
  const Eigen::Index k = added_.cols();
  const MatrixXd DY = D.matrix().asDiagonal() * added_;
  MatrixXd inverse = -sign * (added_.transpose() * DY);
  inverse.diagonal() += added_weights_.cwiseInverse();
  Cholesky factor;
  if (!factor.factor(inverse)) return {};
  return factor.solve_columns(MatrixXd::Identity(k, k));
}

Barriers::Forms Barriers::forms(double sign, double before, double after) const {
  const ArrayXd D0 = 1 / (sign * (before - eigenvalues_.array())), D = 1 / (sign * (after - eigenvalues_.array()));
  const MatrixXd S0 = inner_inverse(sign, D0), S = inner_inverse(sign, D);
  if (S0.size() == 0 || S.size() == 0) return {};
  const MatrixXd DY = D.matrix().asDiagonal() * added_, D2Y = D.matrix().asDiagonal() * DY;
  const MatrixXd D0Y = D0.matrix().asDiagonal() * added_, D0DY = D.matrix().asDiagonal() * D0Y;
  const MatrixXd A2 = DY.transpose() * DY, mixed = DY.transpose() * D0Y;
  const MatrixXd G = transposed_times(DY, rotated_), SG = times(S, G), G2 = transposed_times(D2Y, rotated_);
  Forms forms;
  const VectorXd of_D = D.matrix(), of_squares = D.square().matrix();
  const MatrixXd twice = 2 * sign * G2 + times(A2, SG);
  forms.first = squares_.transpose() * of_D;
  forms.first += sign * G.cwiseProduct(SG).colwise().sum().transpose();
  forms.second = squares_.transpose() * of_squares;
  forms.second += SG.cwiseProduct(twice).colwise().sum().transpose();
  const MatrixXd early = D0Y.transpose() * D0DY, late = DY.transpose() * D0DY;
  const MatrixXd left = S0 * mixed, right = S * mixed;
  forms.trace = (D0 * D).sum() + sign * (S0.cwiseProduct(early).sum() + S.cwiseProduct(late).sum()) +
                left.cwiseProduct(right.transpose()).sum();
  return forms;
}

bool Barriers::advance_between() {
  if (!(eigenvalues_[0] - (lower_ + 1) > gap_ / 2)) return false;
  const Forms upper = forms(1, upper_, upper_ + upper_step_), lower = forms(-1, lower_, lower_ + 1);
  if (!(upper.trace > 0) || !(lower.trace > 0)) return false;
  upper_sums_ = upper.second / (upper_step_ * upper.trace) + upper.first;
  lower_sums_ = lower.second / lower.trace - lower.first;
  lower_ += 1;
  upper_ += upper_step_;
  return true;
}

void Barriers::retreat() {
  lower_ -= 1;
  upper_ -= upper_step_;
}

Barriers::Spectrum Barriers::spectrum() const {
  refresh();
  return {eigenvalues_[0], eigenvalues_[eigenvalues_.size() - 1]};
}

}  // namespace attnreg
