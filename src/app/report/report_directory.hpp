#pragma once

#include <string>

namespace attnreg::app {

/// Local. Creates the directory, and checks that report.json can be written there. Throws `OutputError` (this rank),
/// also if there is one of an earlier run, unless `force`.
void prepare_report_directory(const std::string& directory, bool force);

}  // namespace attnreg::app
