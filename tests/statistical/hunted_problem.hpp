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
  Eigen::Index masked_rows = 0;  ///< that the solver gets besides, the first ones
};

/// The kinds of problems; numbers take turns.
const std::vector<std::string_view>& problem_kinds();
std::string_view kind_of(std::int64_t number);
Method method_of(std::int64_t number);

/// with_offset: the same problem with offsets of the logits and, of losses that know them, masked rows.
HuntedProblem hunted_problem(std::int64_t number, bool with_offset = false);

/// What the solver gets: with the masked rows, which are full of large numbers.
Problem with_masked_rows(const HuntedProblem& hunted);

/// "softmax 12 x 3, newton from zero, w 0 to 0": in one line.
std::string description(const HuntedProblem& hunted);

/// Local. Writes A.npy, b.npy, w.npy and, if there are such, o.npy and x0.npy into `directory`/<number>. Returns the
/// command that solves them.
std::string write_files(const HuntedProblem& hunted, const std::string& directory);

}  // namespace attnreg::hunt
