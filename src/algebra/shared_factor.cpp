#include "algebra/shared_factor.hpp"

#include <cstring>
#include <deque>
#include <memory>
#include <utility>

#include "ranks/once_in_process.hpp"

namespace attnreg {

using Eigen::VectorXd;

namespace {

/// For blocks, which ask the same one after the other: what is computed is kept until all have had it, or much came
/// later.
class FactorOfBlocks final : public CholeskyFactor {
 public:
  explicit FactorOfBlocks(Preconditioner M) : M_(std::move(M)) {}
  VectorXd solve(const VectorXd& r) const override { return product(&Preconditioner::solve, r); }
  VectorXd multiply(const VectorXd& v) const override { return product(&Preconditioner::multiply, v); }
  VectorXd multiply_transpose(const VectorXd& v) const override { return product(&Preconditioner::unwhiten, v); }
  VectorXd solve_transpose(const VectorXd& v) const override { return product(&Preconditioner::whiten, v); }

 private:
  using Operator = VectorXd (Preconditioner::*)(const VectorXd&) const;
  struct Product {
    Operator operation;
    VectorXd v, result;

    bool is(Operator other, const VectorXd& u) const {  // to the bit
      return operation == other && v.size() == u.size() &&
             std::memcmp(v.data(), u.data(), sizeof(double) * static_cast<std::size_t>(u.size())) == 0;
    }
  };
  static constexpr std::size_t kKept = 64;  // more than a block asks for between two messages

  VectorXd product(Operator operation, const VectorXd& v) const {
    for (const Product& known : made_)
      if (known.is(operation, v)) return known.result;
    if (made_.size() == kKept) made_.pop_front();
    made_.push_back({operation, v, (M_.*operation)(v)});
    return made_.back().result;
  }

  Preconditioner M_;
  mutable std::deque<Product> made_;
};

}  // namespace

Preconditioner shared_preconditioner(const Communicator& communicator, Preconditioner own) {
  if (!communicator.is_of_blocks()) return own;
  const bool singular = own.is_singular();
  return Preconditioner(
      once_in_process(communicator, [&] { return std::make_shared<const FactorOfBlocks>(std::move(own)); }), singular);
}

}  // namespace attnreg
