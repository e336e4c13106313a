#pragma once

#include <Eigen/Core>
#include <type_traits>

#include "algebra/dense_product.hpp"

// Eigen compiles A * B anew for each pair of types of A and B, with the kernels of matrices, of vectors and of small
// matrices: one to two seconds a pair, half of the time of a build. With this header, which CMake includes at the top
// of all sources, a product of doubles whose sizes are not known at compile time is a call of `add_dense_product`. It
// uses what Eigen 3.4 calls `generic_product_impl`; with another Eigen all products are compiled in place, as without.

namespace attnreg {

template <class Matrix>
constexpr bool kInMemory = (Matrix::Flags & Eigen::DirectAccessBit) != 0 &&
                           (Matrix::IsVectorAtCompileTime ||
                            Eigen::internal::inner_stride_at_compile_time<Matrix>::ret == 1);

template <class Number, class Matrix>
DensePart<Number> dense_part(Matrix& A) {
  constexpr bool by_rows = (Matrix::Flags & Eigen::RowMajorBit) != 0;
  if constexpr (Matrix::IsVectorAtCompileTime) {
    constexpr bool is_column = Matrix::ColsAtCompileTime == 1;
    if (A.innerStride() != 1) return {A.data(), A.rows(), A.cols(), A.innerStride(), is_column};
    return {A.data(), A.rows(), A.cols(), A.size(), !is_column};
  } else {
    return {A.data(), A.rows(), A.cols(), A.outerStride(), by_rows};
  }
}

/// What Eigen calls to add the product of two expressions to `sum`.
template <class Left, class Right>
struct DenseProduct : Eigen::internal::generic_product_impl_base<Left, Right, DenseProduct<Left, Right>> {
  template <class Sum>
  static void scaleAndAddTo(Sum& sum, const Left& left, const Right& right, const double& alpha) {
    if constexpr (kInMemory<Sum>) {
      using LeftTraits = Eigen::internal::blas_traits<Left>;
      using RightTraits = Eigen::internal::blas_traits<Right>;
      // The matrix itself, transposed or not, without its factor; or what the expression gives.
      const typename LeftTraits::DirectLinearAccessType A = LeftTraits::extract(left);
      const typename RightTraits::DirectLinearAccessType B = RightTraits::extract(right);
      add_dense_product(alpha * LeftTraits::extractScalarFactor(left) * RightTraits::extractScalarFactor(right),
                        dense_part<const double>(A), dense_part<const double>(B), dense_part<double>(sum));
    } else {
      typename Sum::PlainObject product = Sum::PlainObject::Zero(sum.rows(), sum.cols());
      scaleAndAddTo(product, left, right, alpha);
      sum += product;
    }
  }
};

template <class Left, class Right>
concept DoublesOnly = std::is_same_v<typename Left::Scalar, double> && std::is_same_v<typename Right::Scalar, double>;

}  // namespace attnreg

#if EIGEN_WORLD_VERSION == 3 && EIGEN_MAJOR_VERSION == 4
namespace Eigen::internal {

template <class Left, class Right>
requires attnreg::DoublesOnly<Left, Right>
struct generic_product_impl<Left, Right, DenseShape, DenseShape, GemmProduct> : attnreg::DenseProduct<Left, Right> {
};

template <class Left, class Right>
requires attnreg::DoublesOnly<Left, Right>
struct generic_product_impl<Left, Right, DenseShape, DenseShape, GemvProduct> : attnreg::DenseProduct<Left, Right> {
};

}  // namespace Eigen::internal
#endif
