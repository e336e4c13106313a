#pragma once

#include <Eigen/Core>
#include <cmath>
#include <functional>

#include "newton/objective.hpp"

namespace attnreg {

/// L(x) = x^4 / 4 + x^2 / 2 in one unknown, on this rank alone; tests override what they want to go wrong.
class StubObjective : public Objective {
 public:
  Eigen::Index dimension() const override { return 1; }
  void move_to(const Eigen::VectorXd& x) override {
    x_ = x;
    value_ = value_at(x[0]);
    gradient_ = Eigen::VectorXd::Constant(1, slope_at(x[0]));
    ++moves;
  }
  const Eigen::VectorXd& x() const override { return x_; }
  double value() const override { return value_; }
  const Eigen::VectorXd& gradient() const override { return gradient_; }
  double gradient_floor() override { return floor; }
  Hessian hessian() override { return hessian_of(1 + 3 * x_[0] * x_[0]); }
  Eigen::VectorXd hessian_product(const Eigen::VectorXd& p) override { return (1 + 3 * x_[0] * x_[0]) * p; }
  void set_direction(const Eigen::VectorXd& s) override { s_ = s; }
  void clear_direction() override { s_ = Eigen::VectorXd::Zero(1); }
  void extend_direction(double) override {}
  const Eigen::VectorXd& direction() const override { return s_; }
  std::vector<double> change_along(std::span<const double> ts) override {
    std::vector<double> changes;
    for (const double t : ts) changes.push_back(value_at(x_[0] + t * s_[0]) - value_);
    return changes;
  }
  void step(double t) override {
    move_to(x_ + t * s_);
    ++steps;
  }
  double reads_of_a() const override { return 0; }
  std::int64_t collectives() const override { return 0; }
  double seconds() const override { return steps; }  ///< every step takes a second

  virtual double value_at(double x) const { return x * x * x * x / 4 + x * x / 2; }
  virtual double slope_at(double x) const { return x * x * x + x; }

  double floor = 0;
  int steps = 0, moves = 0;

 protected:
  static Hessian hessian_of(double curvature) {
    const Eigen::MatrixXd matrix = Eigen::MatrixXd::Constant(1, 1, curvature);
    return {Communicator(MPI_COMM_SELF), matrix, matrix, matrix.diagonal()};
  }

 private:
  Eigen::VectorXd x_, gradient_, s_;
  double value_ = 0;
};

}  // namespace attnreg
