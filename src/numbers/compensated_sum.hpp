#pragma once

#include <Eigen/Core>
#include <cmath>

namespace attnreg {

/// A sum whose roundings are summed, too (Knuth's two-sum): its error is that of one rounding and about (terms eps)^2.
class CompensatedSum {
 public:
  CompensatedSum& operator+=(double term) {
    const double sum = sum_ + term, added = sum - sum_;
    lost_ += (sum_ - (sum - added)) + (term - added);
    sum_ = sum;
    return *this;
  }
  CompensatedSum& operator+=(const CompensatedSum& other) {
    *this += other.sum_;
    lost_ += other.lost_;
    return *this;
  }
  double value() const { return std::isfinite(lost_) ? sum_ + lost_ : sum_; }  // inf - inf is no rounding

 private:
  double sum_ = 0, lost_ = 0;
};

/// With the error of one rounding: a plain sum of n equal terms may lose n / 32 units in the last place.
inline double compensated_sum(const Eigen::VectorXd& terms) {
  CompensatedSum sum;
  for (const double term : terms) sum += term;
  return sum.value();
}

/// The same entry by entry.
class CompensatedMatrix {
 public:
  CompensatedMatrix(Eigen::Index rows, Eigen::Index columns)
      : sum_(Eigen::ArrayXXd::Zero(rows, columns)), lost_(Eigen::ArrayXXd::Zero(rows, columns)) {}

  CompensatedMatrix& operator+=(const Eigen::MatrixXd& terms) {
    double* const sums = sum_.data();
    double* const lost = lost_.data();
    const double* const added = terms.data();
#pragma omp simd
    for (Eigen::Index k = 0; k < terms.size(); ++k) {
      const double sum = sums[k] + added[k], moved = sum - sums[k];
      lost[k] += (sums[k] - (sum - moved)) + (added[k] - moved);
      sums[k] = sum;
    }
    return *this;
  }
  CompensatedMatrix& operator+=(const CompensatedMatrix& other) {
    *this += other.sum_.matrix();
    lost_ += other.lost_;
    return *this;
  }
  Eigen::MatrixXd values() const { return lost_.isFinite().select(sum_ + lost_, sum_).matrix(); }

 private:
  Eigen::ArrayXXd sum_, lost_;
};

}  // namespace attnreg
