#pragma once

#include <string>
#include <vector>

#include "attnreg/regression.hpp"

namespace attnreg {

/// Sums over all rows of the target b. Replicated.
struct Target {
  double sum = 0, positive_sum = 0, negative_rows = 0, squared_norm = 0;
};

/// Collective, one all-reduce of 32 bytes.
Target describe_target(const RowMatrix& A, const Eigen::VectorXd& b);

/// Local. What softmax(A x) cannot match in this target.
std::vector<std::string> target_warnings(const Target& target);

/// Collective, one all-reduce of 40 bytes. f, b: this rank's rows.
FitQuality fit_quality(const RowMatrix& A, const Eigen::VectorXd& f, const Eigen::VectorXd& b, const Target& target);

}  // namespace attnreg
