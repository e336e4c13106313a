#pragma once

#include <Eigen/Core>
#include <string>

#include "attnreg/row_matrix.hpp"
#include "losses/loss.hpp"
#include "rows/logit_offsets.hpp"

namespace attnreg {

/// Collective, up to three small all-reduces. What the loss compares with b at the logits z, this rank's: softmax(z),
/// u(z), or u(z) / <u(z), 1>. The last is made of u(z) exp(-largest exponent), which does not overflow.
Eigen::VectorXd fitted_values(const Communicator& communicator, const Loss& loss, const Eigen::VectorXd& z);

/// Local. The logits z + o of this rank's rows.
Eigen::VectorXd with_offsets(Eigen::VectorXd z, const LogitOffsets& offsets);

/// Collective, an agreement. Throws `NotFinite` on all ranks for the first of the values, one per row of A, that is not
/// finite. what: "exp(A x)".
void require_finite_rows(const RowMatrix& A, const Eigen::VectorXd& values, const std::string& what);

}  // namespace attnreg
