#pragma once

#include <Eigen/Core>
#include <memory>

#include "attnreg/attention_regression.hpp"

namespace attnreg {

using ArrayRow = Eigen::Ref<Eigen::ArrayXd>;
using ConstArrayRow = const Eigen::Ref<const Eigen::ArrayXd>&;

/// What one row z of logits adds to L for its target b: value and derivatives with respect to z. All members are local,
/// take rows of n2 numbers, and cost a few passes over them. u is what `value` made of z: softmax(z), or exp(z).
///
/// A row of A1 X A2^T is a vector regression of its own; these are its formulas, with all sums over the row at hand
/// (docs/attention.md). In place of a new L, `change` gives L(z + y) - L(z) without cancellation.
class LogitRow {
 public:
  virtual ~LogitRow() = default;

  /// The value at z, and u; +inf, never NaN, where it overflows.
  virtual double value(ConstArrayRow z, ConstArrayRow b, ArrayRow u) const = 0;
  /// q = the gradient in z.
  virtual void gradient(ConstArrayRow u, ConstArrayRow b, ArrayRow q) const = 0;
  /// t becomes B t, B the Hessian in z.
  virtual void multiply_hessian(ConstArrayRow u, ConstArrayRow b, ArrayRow t) const = 0;
  /// L(z + y) - L(z); y is overwritten. +inf, never NaN, where it overflows.
  virtual double change(ConstArrayRow u, ConstArrayRow b, ArrayRow y) const = 0;

  /// The positive semidefinite part of B that models it: diag(D) - c g^T - g c^T + s c c^T; returns s.
  virtual double model(ConstArrayRow u, ConstArrayRow b, ArrayRow D, ArrayRow c, ArrayRow g) const = 0;
};

/// Local.
std::unique_ptr<LogitRow> make_logit_row(AttentionForm form);

/// Local. u = softmax(z); returns log <exp(z), 1>. z and u may be the same memory.
double softmax_row(ConstArrayRow z, ArrayRow u);

/// Local. y becomes softmax(z + y) - softmax(z), f = softmax(z), accurate also for small y; NaN where it overflows.
void softmax_change(ConstArrayRow f, ArrayRow y);

}  // namespace attnreg
