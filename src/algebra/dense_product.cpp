#include "algebra/dense_product.hpp"

#include <Eigen/Core>

namespace attnreg {

using Eigen::Index;
using Eigen::VectorXd;

namespace {

// A type of this file alone: its products are Eigen's own here, and have the names of no other product.
struct Stride : Eigen::OuterStride<> {
  using Eigen::OuterStride<>::OuterStride;
};

template <int order>
using Part = Eigen::Map<const Eigen::Matrix<double, -1, -1, order>, 0, Stride>;

template <int order>
Part<order> part(const DensePart<const double>& A) {
  return {A.data, A.rows, A.columns, Stride(A.stride)};
}

/// Calls function(A) with the type that A is stored as.
template <class Function>
void with_order(const DensePart<const double>& A, const Function& function) {
  if (A.by_rows) {
    function(part<Eigen::RowMajor>(A));
  } else {
    function(part<Eigen::ColMajor>(A));
  }
}

/// Eigen's kernels cost more than they save where all is this small.
constexpr Index kSmall = 20;

/// C is stored by columns.
void add_small_product(double alpha, const DensePart<const double>& A, const DensePart<const double>& B,
                       const DensePart<double>& C) {
  const Index step_i = A.by_rows ? A.stride : 1, step_k = A.by_rows ? 1 : A.stride;
  const Index step_kb = B.by_rows ? B.stride : 1, step_jb = B.by_rows ? 1 : B.stride;
  for (Index j = 0; j < C.columns; ++j) {
    for (Index i = 0; i < C.rows; ++i) {
      double sum = 0;
      for (Index k = 0; k < A.columns; ++k) sum += A.data[i * step_i + k * step_k] * B.data[k * step_kb + j * step_jb];
      C.data[i + j * C.stride] += alpha * sum;
    }
  }
}

/// y += alpha A x, x and y of one column.
void add_product_with_vector(double alpha, const DensePart<const double>& A, const DensePart<const double>& x,
                             const DensePart<double>& y) {
  using Elements = Eigen::InnerStride<>;
  const Eigen::Map<const VectorXd, 0, Elements> strided_x(x.data, x.rows, Elements(x.by_rows ? x.stride : 1));
  Eigen::Map<VectorXd, 0, Elements> strided_y(y.data, y.rows, Elements(y.by_rows ? y.stride : 1));
  VectorXd copy, sum;
  if (strided_x.innerStride() != 1) copy = strided_x;
  if (strided_y.innerStride() != 1) sum = VectorXd::Zero(y.rows);
  const Part<Eigen::ColMajor> X(copy.size() > 0 ? copy.data() : x.data, x.rows, 1, Stride(x.rows));
  Eigen::Map<Eigen::MatrixXd, 0, Stride> Y(sum.size() > 0 ? sum.data() : y.data, y.rows, 1, Stride(y.rows));
  with_order(A, [&](const auto& matrix) { Y.col(0).noalias() += alpha * (matrix * X.col(0)); });
  if (sum.size() > 0) strided_y += sum;
}

}  // namespace

void add_dense_product(double alpha, const DensePart<const double>& A, const DensePart<const double>& B,
                       const DensePart<double>& C) {
  if (C.rows == 0 || C.columns == 0 || A.columns == 0) return;
  if (C.columns == 1) return add_product_with_vector(alpha, A, B, C);
  if (C.rows == 1) return add_product_with_vector(alpha, B.transposed(), A.transposed(), C.transposed());
  if (C.by_rows) return add_dense_product(alpha, B.transposed(), A.transposed(), C.transposed());
  if (A.rows + A.columns + B.columns < kSmall) return add_small_product(alpha, A, B, C);
  Eigen::Map<Eigen::MatrixXd, 0, Stride> sum(C.data, C.rows, C.columns, Stride(C.stride));
  with_order(
      A, [&](const auto& left) { with_order(B, [&](const auto& right) { sum.noalias() += alpha * (left * right); }); });
}

}  // namespace attnreg
