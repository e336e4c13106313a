#pragma once

#include <string>

#include "attnreg/error.hpp"

namespace attnreg {

/// Local. Throws `InvalidArgument` of all ranks: for what every rank finds wrong by itself, so that no message is
/// needed.
[[noreturn]] void refuse(const std::string& message);

/// Local. Refuses unless `condition`, which is the same on all ranks, holds.
inline void require(bool condition, const std::string& message) {
  if (!condition) refuse(message);
}

/// Local. Throws the class that belongs to `code`, with the given message and scope.
[[noreturn]] void throw_error(ExitCode code, const std::string& message, Error::Scope scope);

}  // namespace attnreg
