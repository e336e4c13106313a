#pragma once

#include <Eigen/Core>

/// Decompositions of small matrices by Eigen, compiled once. Symmetric matrices are whole.
namespace attnreg::reference {

/// Of a symmetric matrix; with a definite `metric`, of S v = lambda metric v. In ascending order.
Eigen::VectorXd eigenvalues(const Eigen::MatrixXd& symmetric);
Eigen::VectorXd eigenvalues(const Eigen::MatrixXd& symmetric, const Eigen::MatrixXd& metric);

/// S v = lambda metric v, and V^T metric V = I.
struct EigenPairs {
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;
};
EigenPairs eigen_pairs(const Eigen::MatrixXd& symmetric, const Eigen::MatrixXd& metric);

/// max |lambda(H^{-1/2} M H^{-1/2}) - 1|; +inf where H is not positive definite.
double spectral_error(const Eigen::MatrixXd& H, const Eigen::MatrixXd& M);

/// The lower L with L L^T = M.
Eigen::MatrixXd cholesky_factor(const Eigen::MatrixXd& M);

/// M^-1 B for a positive definite M.
Eigen::MatrixXd solved(const Eigen::MatrixXd& M, const Eigen::MatrixXd& B);

Eigen::MatrixXd inverse(const Eigen::MatrixXd& M);

/// In descending order.
Eigen::VectorXd singular_values(const Eigen::MatrixXd& M);

}  // namespace attnreg::reference
