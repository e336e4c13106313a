#pragma once

#include <string>

#include "attnreg/error.hpp"

namespace attnreg {

// Local. How a rank that fails alone ends the job, because of the exception that is being handled.

ExitCode code_of_lone_failure() noexcept;  ///< 7 for a lack of memory, else 9
/// "error on rank 2: out of memory". Throws `std::bad_alloc`.
std::string text_of_lone_failure(int rank);

}  // namespace attnreg
