#pragma once

#include "attnreg/error.hpp"

namespace attnreg {

/// Local. The code with which a rank that fails alone ends the job, of the exception that is being handled: 7 for a
/// lack of memory, else 9.
ExitCode code_of_lone_failure() noexcept;

}  // namespace attnreg
