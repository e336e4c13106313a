#include "app/node/message_libraries.hpp"

#include <dlfcn.h>

#include <fstream>

#include "attnreg/communicator.hpp"
#include "ranks/mpi_facts.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kDigits = "0123456789";

/// From the first digit on: "OpenPMIx 4.2.2rc2 (PMIx Standard: ...)" -> "4.2.2rc2".
std::string first_number(std::string_view text) {
  const std::size_t first = text.find_first_of(kDigits);
  if (first == std::string_view::npos) return "";
  const std::size_t behind = text.find_first_of(" ,;\t\n", first);
  return std::string(text.substr(first, behind == std::string_view::npos ? behind : behind - first));
}

/// The text that `function` of a library returns, if the library is loaded already; else "".
std::string ask(const char* library, const char* function) {
  void* const handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  if (handle == nullptr) return "";
  const auto describe = reinterpret_cast<const char* (*)()>(dlsym(handle, function));
  std::string text = describe != nullptr ? describe() : "";
  dlclose(handle);
  return text;
}

/// The version of an installed package of Debian, or of a system that descends from it; "" elsewhere.
std::string package_version(const std::string& package) {
  constexpr std::string_view kVersion = "Version: ";
  std::ifstream status("/var/lib/dpkg/status");
  bool here = false;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Package: ")) here = line == "Package: " + package;
    if (here && line.starts_with(kVersion)) return line.substr(kVersion.size());
  }
  return "";
}

}  // namespace

MessageLibrary mpi_library(std::string_view description) {
  for (const std::string_view name : {"Open MPI", "MPICH"})
    if (description.starts_with(name)) return {std::string(name), first_number(description), ""};
  return {std::string(description.substr(0, description.find_first_of(",\n"))), "", ""};
}

std::vector<MessageLibrary> message_libraries() {
  std::vector<MessageLibrary> libraries{mpi_library(mpi_facts().library)};
  if (const std::string pmix = ask("libpmix.so.2", "PMIx_Get_version"); !pmix.empty())
    libraries.push_back({"PMIx", first_number(pmix), package_version("libpmix2")});
  if (const std::string ucx = ask("libucp.so.0", "ucp_get_version_string"); !ucx.empty())
    libraries.push_back({"UCX", first_number(ucx), package_version("libucx0")});
  return libraries;
}

}  // namespace attnreg::app
