#pragma once

#include <Eigen/Core>
#include <cmath>

#include "attnreg/row_storage.hpp"
#include "kernels/gram_kernels.hpp"

namespace attnreg {

/// Local. gram += sign P^T P in the lower triangle; the strict upper one is undefined afterwards. P: k x d, its rows
/// shared between the threads; gram: d x d. k d^2 flops.
void add_outer_products(const RowMajorMatrix& P, double sign, RowMajorMatrix& gram);

/// sum_i |weight_i| (a_i - centre)(a_i - centre)^T in the lower triangle, of rows that come one by one. They are
/// gathered, because the kernel is at its best with some hundred at a time.
class WeightedGram {
 public:
  explicit WeightedGram(Index columns) : gram_(RowMajorMatrix::Zero(columns, columns)) {}

  template <class Row>
  void add(double weight, const Row& centred) {
    if (gathered_.size() == 0) gathered_.resize(kRows, gram_.cols());
    gathered_.row(count_++) = std::sqrt(std::abs(weight)) * centred;
    if (count_ == kRows) flush();
  }

  WeightedGram& operator+=(WeightedGram& other) {
    gram_ += other.lower();
    return *this;
  }

  /// What came so far, and where more may be added; the strict upper triangle is undefined.
  RowMajorMatrix& lower() {
    flush();
    return gram_;
  }
  Eigen::MatrixXd full() {
    Eigen::MatrixXd full = lower().triangularView<Eigen::Lower>();
    full.triangularView<Eigen::StrictlyUpper>() = full.transpose();
    return full;
  }

 private:
  static constexpr Index kRows = 512;

  void flush() {
    if (count_ == 0) return;
    kernels::add_gram(gathered_.data(), count_, gram_.cols(), gram_.data());
    count_ = 0;
  }

  RowMajorMatrix gram_, gathered_;
  Index count_ = 0;
};

}  // namespace attnreg
