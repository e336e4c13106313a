#include "algebra/distributed_solver.hpp"

namespace attnreg {

bool DistributedPencil::is_finite() const {
  const bool H = H_.is_finite(), M = M_.is_finite();  // both are collective
  return H && M;
}

void DistributedPencil::add_ridge(const Eigen::VectorXd& ridge) {
  for (DistributedMatrix* const matrix : {&H_, &M_}) matrix->set_diagonal(matrix->diagonal() + ridge);
}

bool DistributedPencil::factor(double shift) {
  if (!factor_) factor_.emplace(H_.shared_grid(), H_.rows(), H_.columns());
  factor_->local() = H_.local() + shift * M_.local();
  return scalapack::factor_cholesky(*factor_);
}

}  // namespace attnreg
