#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/regression.hpp"
#include "statistical/exact.hpp"

namespace attnreg::hunt {

/// A small problem, and how it is to be solved: all a function of its number.
struct HuntedProblem {
  std::int64_t number = 0;
  std::string_view kind;
  Problem problem;
  bool is_sparse = false;
  RegressionOptions options;
};

/// The kinds of problems; numbers take turns.
const std::vector<std::string_view>& problem_kinds();
std::string_view kind_of(std::int64_t number);
Method method_of(std::int64_t number);

HuntedProblem hunted_problem(std::int64_t number);

/// "softmax 12 x 3, newton from zero, w 0 to 0": in one line.
std::string description(const HuntedProblem& hunted);

/// Local. Writes A.npy, b.npy, w.npy and, if there is such, x0.npy into `directory`/<number>. Returns the command that
/// solves them.
std::string write_files(const HuntedProblem& hunted, const std::string& directory);

}  // namespace attnreg::hunt
