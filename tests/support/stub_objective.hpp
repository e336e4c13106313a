#pragma once

#include <Eigen/Core>

#include "newton/objective.hpp"

namespace attnreg {

/// L(x) = x^4 / 4 + x^2 / 2 in one unknown, on this rank alone; tests override what they want to go wrong.
class StubObjective : public Objective {
 public:
  Eigen::Index dimension() const override { return 1; }
  Point evaluate(const Eigen::VectorXd& x) override {
    return {x, value_at(x[0]), Eigen::VectorXd::Constant(1, slope_at(x[0])), static_cast<double>(steps)};
  }
  double gradient_floor(const Point&, double) override { return floor; }
  Hessian hessian(const Point& point) override { return hessian_of(curvature(point)); }
  Eigen::VectorXd hessian_product(const Point& point, Direction& p) override { return curvature(point) * p.s; }
  std::vector<Trial> try_steps(const Point& point, const Direction& direction, std::span<const double> ts) override {
    std::vector<Trial> trials;
    for (const double t : ts) trials.push_back({t, change(point, t * direction.s[0])});
    return trials;
  }
  Point step(Point point, Direction direction, const Trial& trial) override {
    ++steps;  // every step takes a second
    return Objective::step(std::move(point), std::move(direction), trial);
  }
  double reads_of_a() const override { return 0; }
  std::int64_t collectives() const override { return 0; }

  virtual double value_at(double x) const { return x * x * x * x / 4 + x * x / 2; }
  virtual double slope_at(double x) const { return x * x * x + x; }
  virtual double change(const Point& point, double move) const { return value_at(point.x[0] + move) - point.value; }

  double floor = 0;
  int steps = 0;

 protected:
  static double curvature(const Point& point) { return 1 + 3 * point.x[0] * point.x[0]; }
  static Hessian hessian_of(double curvature) {
    const Eigen::MatrixXd matrix = Eigen::MatrixXd::Constant(1, 1, curvature);
    return {Communicator(MPI_COMM_SELF), matrix, matrix, matrix.diagonal()};
  }
};

}  // namespace attnreg
