#include "app/report/report_directory.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/options/commands.hpp"
#include "app/report/text.hpp"
#include "attnreg/error.hpp"
#include "errors/printable.hpp"
#include "files/output_file.hpp"

namespace attnreg::app {

void prepare_directory(const std::string& directory, const std::vector<std::string>& names, bool force,
                       std::string_view whole) {
  create_directories(directory);
  for (const auto& name : names) {
    const std::string path = directory + "/" + name;
    if (!force && std::filesystem::exists(path))
      throw OutputError(printable(path) + " exists; choose another directory for -o, or add --force to replace the " +
                        std::string(whole));
    OutputFile check(path);
  }
}

ReportDirectory::ReportDirectory(const Communicator& communicator, const Arguments& arguments)
    : communicator_(communicator), arguments_(arguments), path_(arguments.text("output")) {
  communicator.agree([&] {
    if (communicator.is_root() && is_used()) prepare_directory(path_, {"report.json"}, arguments.on("force"), "run");
  });
}

void ReportDirectory::finish(const nlohmann::ordered_json& report, const std::string& text) const {
  communicator_.agree([&] {
    if (communicator_.is_root() && is_used()) write_file(file("report.json"), json_text(report));
  });
  print_result(communicator_, arguments_.on("json") ? json_text(report) : text);
}

}  // namespace attnreg::app
