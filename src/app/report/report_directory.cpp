#include "app/report/report_directory.hpp"

#include <filesystem>

#include "attnreg/error.hpp"
#include "errors/printable.hpp"
#include "files/output_file.hpp"

namespace attnreg::app {

void prepare_report_directory(const std::string& directory, bool force) {
  create_directories(directory);
  const std::string path = directory + "/report.json";
  if (!force && std::filesystem::exists(path))
    throw OutputError(printable(path) + " exists; choose another directory for -o, or add --force to replace the run");
  OutputFile check(path);
}

}  // namespace attnreg::app
