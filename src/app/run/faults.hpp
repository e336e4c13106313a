#pragma once

#include <string_view>

namespace attnreg::app {

/// Local. A hook for tests: with the environment variable ATTNREG_FAULT="rank:site:throw", a bug is played at `site` of
/// that rank: std::logic_error is thrown there, and nowhere else. Sites: start, after-load, in-iteration, before-write.
/// A variable that does not have this form is a `UsageError`.
void inject_fault(int rank, std::string_view site);

}  // namespace attnreg::app
