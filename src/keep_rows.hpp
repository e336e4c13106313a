#pragma once

#include "attnreg/sampling.hpp"

namespace attnreg {

/// Local. `sample_poisson` without its checks and without the count of all ranks (`count_global` stays 0), for callers
/// that add the count to a message of their own. scores: finite, >= 0.
SampledRows keep_rows(const RowMatrix& A, const Eigen::VectorXd& scores, const PoissonOptions& options);

}  // namespace attnreg
