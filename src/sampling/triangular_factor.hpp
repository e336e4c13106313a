#pragma once

#include <Eigen/Core>
#include <vector>

#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// R of the QR factorization of the rows seen so far, updated block by block: R <- R of [R; block].
class TriangularFactor {
 public:
  explicit TriangularFactor(Index columns);

  /// Local. block: any rows x columns, column-major; overwritten. 2 rows d^2 flops, by one thread at a time.
  void add(Eigen::MatrixXd& block);
  TriangularFactor& operator+=(const TriangularFactor& other);

  const Eigen::MatrixXd& R() const { return R_; }

 private:
  Eigen::MatrixXd R_;
  Eigen::VectorXd workspace_;
};

/// Local, one read of A. R of diag(row_scale) A for this rank's rows, d x d. row_scale: rows_local, or empty for ones.
TriangularFactor triangular_factor(const RowMatrix& A, const Eigen::VectorXd& row_scale);

}  // namespace attnreg
