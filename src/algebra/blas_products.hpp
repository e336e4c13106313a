#pragma once

#include <Eigen/Core>

#include "attnreg/communicator.hpp"

namespace attnreg {

// Products of dense matrices by BLAS, column-major. All are local; call them outside of parallel regions only. Another
// CPU may round otherwise: a result that all ranks need with the same bits is broadcast, or summed over the ranks.

using MatrixPart = const Eigen::Ref<const Eigen::MatrixXd>&;

Eigen::MatrixXd times(MatrixPart A, MatrixPart B);             ///< A B
Eigen::MatrixXd transposed_times(MatrixPart A, MatrixPart B);  ///< A^T B
Eigen::MatrixXd times_transposed(MatrixPart A, MatrixPart B);  ///< A B^T

Eigen::MatrixXf float_transposed_times(const Eigen::MatrixXf& A, const Eigen::MatrixXf& B);
Eigen::MatrixXf float_times_transposed(const Eigen::MatrixXf& A, const Eigen::MatrixXf& B);

/// sum += A B
void add_times(MatrixPart A, MatrixPart B, Eigen::Ref<Eigen::MatrixXd> sum);
/// sum += A^T B
void add_transposed_times(MatrixPart A, MatrixPart B, Eigen::Ref<Eigen::MatrixXd> sum);
/// sum += A B^T
void add_times_transposed(MatrixPart A, MatrixPart B, Eigen::Ref<Eigen::MatrixXd> sum);

/// Collective. A first call of BLAS, so that its buffers are there before data take the memory: where OpenBLAS finds
/// none, it tries again for ever. `OutOfMemory` on all ranks, with the limit, if a rank has no room for them and for
/// the stacks of its threads.
void start_blas(const Communicator& communicator, int threads);

/// A A^T, both triangles; half the flops of a product. A: d x n.
Eigen::MatrixXd gram_of_rows(MatrixPart A);
/// sum += A A^T in the lower triangle.
void add_gram_of_rows(MatrixPart A, Eigen::MatrixXd& sum);
/// Copies the lower triangle to the upper one.
void mirror(Eigen::MatrixXd& lower);

}  // namespace attnreg
