#pragma once

#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "statistical/hunted_problem.hpp"

namespace attnreg::hunt {

/// A statement of the solver that is false.
struct Violation {
  std::string kind;  ///< one of `violation_kinds`
  std::string text;  ///< what was said, and what is true
};

/// What is looked for, each with a sentence.
struct ViolationKind {
  std::string_view name;
  std::string_view meaning;
};
const std::vector<ViolationKind>& violation_kinds();

/// Local. All statements of a result that are false.
std::vector<Violation> judge(const HuntedProblem& hunted, const RegressionResult& result);

/// Local. Whether an ordinary user could be refused this problem: its squares leave the doubles.
bool may_be_refused(const HuntedProblem& hunted);

}  // namespace attnreg::hunt
