#pragma once

#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "losses/loss.hpp"
#include "rows/logit_offsets.hpp"

namespace attnreg {

/// Sums over all rows of the target b. Replicated.
struct Target {
  double sum = 0, positive_sum = 0, negative_rows = 0, squared_norm = 0;
  double low_rows = 0;  ///< values below the loss's infimum
};

/// Collective, one all-reduce of 40 bytes.
Target describe_target(const RowMatrix& A, const Eigen::VectorXd& b, const Loss& loss);

/// Local. What the loss cannot match in this target, and what its minimisers are like.
std::vector<std::string> target_warnings(const Target& target, const Loss& loss);

/// Collective, up to 20 reads. Whether A v = 1 has a solution, by conjugate gradients on the normal equations: false
/// if these did not find it. One all-reduce a read.
bool spans_ones(const RowMatrix& A);

/// Collective, one agreement. Throws `InvalidArgument` on all ranks unless there is a number for each row of A, finite
/// and of size 1e300 at most, or, of losses that know masks, -infinity, not in all rows. Without offsets: none of that.
void check_offset(const RowMatrix& A, const RegressionModel& model);
/// Collective, if there are offsets. What the loss sees of them, of checked ones.
LogitOffsets logit_offsets(const RowMatrix& A, const RegressionModel& model);

/// Collective, one all-reduce of 40 bytes. f, b: this rank's rows.
FitQuality fit_quality(const RowMatrix& A, const Eigen::VectorXd& f, const Eigen::VectorXd& b, const Target& target);

}  // namespace attnreg
