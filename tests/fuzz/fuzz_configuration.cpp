// A file for --config: TOML, JSON, or the run.json of an earlier run. What solve takes from it is written as
// --print-config does; read again, it says the same.

#include <nlohmann/json.hpp>

#include "app/options/settings.hpp"
#include "app/options/solver_options.hpp"
#include "bytes_as_file.hpp"

namespace {

using namespace attnreg;

const app::Syntax& syntax() {
  static const app::Syntax solve{"solve", "", {{"A", ""}, {"b", ""}}, app::solver_options(), ""};
  return solve;
}

app::Arguments arguments_in(const std::string& path) {
  const std::vector<std::string> words{"--config", path};
  return {syntax(), words, app::settings_of(fuzz::communicator(), syntax(), words, {"solve", "attention"})};
}

/// Without the sources of the values, and without the name of the file.
nlohmann::ordered_json values_of(const app::Arguments& arguments) {
  nlohmann::ordered_json values;
  const auto configuration = arguments.configuration();
  for (const auto& [name, entry] : configuration.items())
    if (name != "config") values[name] = entry["value"];
  return values;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::read_or_refuse([&] {
    const app::Arguments given = arguments_in(fuzz::as_file(data, size));
    const std::string written = app::config_text(given);
    const std::string path = fuzz::as_file(reinterpret_cast<const std::uint8_t*>(written.data()), written.size());
    try {
      if (values_of(arguments_in(path)) != values_of(given)) std::abort();
    } catch (const Error&) {
      std::abort();
    }
  });
  return 0;
}
