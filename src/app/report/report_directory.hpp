#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// Local. Creates the directory, and checks that files of these names can be written there. Throws `OutputError` (this
/// rank), also if one of them is there, unless `force`; whole: what --force replaces, "run".
void prepare_directory(const std::string& directory, const std::vector<std::string>& names, bool force,
                       std::string_view whole);

/// The directory of a command that writes report.json, with --output, --force and --json.
class ReportDirectory {
 public:
  /// Collective. Without --output nothing is ever written. Throws `OutputError` on all ranks.
  ReportDirectory(const Communicator& communicator, const Arguments& arguments);

  bool is_used() const { return !path_.empty(); }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Collective. Writes report.json, and prints it if there is --json, else `text`. Throws `OutputError` on all ranks.
  void finish(const nlohmann::ordered_json& report, const std::string& text) const;

 private:
  const Communicator& communicator_;
  const Arguments& arguments_;
  std::string path_;
};

}  // namespace attnreg::app
