#include "app/node/known_faults.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>

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

using Versions = std::vector<KnownFault::Versions>;

/// "4.2.2rc2" -> 4, 2, 2: up to three numbers, what is missing is 0.
std::array<int, 3> numbers(std::string_view version) {
  std::array<int, 3> parts{};
  const char* place = version.data();
  const char* const end = place + version.size();
  for (int& part : parts) {
    const auto [behind, error] = std::from_chars(place, end, part);
    if (error != std::errc{} || behind == end || *behind != '.') break;
    place = behind + 1;
  }
  return parts;
}

bool among(std::string_view version, const Versions& ranges) {
  return std::ranges::any_of(ranges, [&](const KnownFault::Versions& range) {
    if (range.mended.empty()) return numbers(version) == numbers(range.first);
    return numbers(range.first) <= numbers(version) && numbers(version) < numbers(range.mended);
  });
}

bool has(const std::vector<MessageLibrary>& libraries, std::string_view name, const Versions& versions,
         const KnownFault& fault) {
  return std::ranges::any_of(libraries, [&](const MessageLibrary& library) {
    return library.name == name && !library.version.empty() && among(library.version, versions) &&
           std::ranges::none_of(fault.mended_packages,
                                [&](auto package) { return library.package.starts_with(package); });
  });
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

const std::vector<KnownFault>& known_faults() {
  // The packages are those of Debian's and Ubuntu's security updates: their changelogs, and
  // https://osv.dev/vulnerability/UBUNTU-CVE-2023-41915. PMIx 4.1.3: the changelog of Fedora's package.
  static const std::vector<KnownFault> faults{
      {.library = "Open MPI",
       .versions = {{"2.1.0", "2.1.5"}, {"3.0.0", "3.0.1"}, {"3.1.0", "3.1.2"}},
       .numbers = true,
       .harm = "a race in shared memory (vader) may crash ranks or lose messages",
       .cure = "take 2.1.5, 3.0.1, 3.1.2 or later",
       .source = "https://docs.open-mpi.org/en/v5.0.x/release-notes/changelog/v3.1.x.html (3.1.2)"},
      {.library = "Open MPI",
       .versions = {{"0", "4.1.1"}},
       .partner = "UCX",
       .partner_versions = {{"1.8.0", ""}},
       .numbers = true,
       .harm = "UCX 1.8.0 may corrupt data when it uses TCP together with shared memory",
       .cure = "take another UCX, or set OMPI_MCA_pml=^ucx",
       .source = "https://docs.open-mpi.org/en/v5.0.x/release-notes/changelog/v4.1.x.html (4.1.1)"},
      {.library = "MPICH",
       .versions = {{"4.1", "4.1.3"}},
       .numbers = true,
       .harm = "MPI_Reduce of more than 2 KB gives wrong sums on several hosts if rank 0 is alone on its own",
       .cure = "take 4.1.3 or later",
       .source = "https://github.com/pmodels/mpich/issues/6893, https://github.com/pmodels/mpich/releases/tag/v4.1.3"},
      {.library = "Open MPI",
       .versions = {{"4.1.0", "4.1.2"}},
       .partner = "PMIx",
       .partner_versions = {{"4.0.0", "5.0.0"}},
       .harm = "mpirun crashes when it starts ranks on other hosts, or at once",
       .cure = "take Open MPI 4.1.2 or later, or one that is built with its own PMIx",
       .source = "https://github.com/open-mpi/ompi/issues/8596, "
                 "https://docs.open-mpi.org/en/v5.0.x/release-notes/changelog/v4.1.x.html (4.1.2)"},
      {.library = "Open MPI",
       .versions = {{"4.1.0", "4.1.6"}},
       .partner = "PMIx",
       .partner_versions = {{"4.2.3", "6.0.0"}},
       .harm = "daemons on other hosts may not reach mpirun",
       .cure = "take Open MPI 4.1.6 or later, or one that is built with its own PMIx",
       .source = "https://github.com/open-mpi/ompi/issues/11729, "
                 "https://docs.open-mpi.org/en/v5.0.x/release-notes/changelog/v4.1.x.html (4.1.6)"},
      {.library = "PMIx",
       .versions = {{"0", "3.2.5"}, {"4.0.0", "4.0.1"}, {"4.1.0", "4.1.3"}, {"4.2.0", "4.2.6"}, {"5.0.0", "5.0.1"}},
       .mended_packages = {"2.1.1~rc1-1ubuntu0.1~esm", "3.1.2-3+deb10u", "4.1.2-2ubuntu1+esm", "4.2.2-1+deb12u"},
       .harm = "CVE-2023-41915: where root runs PMIx, as Slurm does, users can become owners of any file",
       .cure = "tell the administrator: 3.2.5, 4.0.1, 4.1.3, 4.2.6, 5.0.1 and later, or a mended package",
       .source = "https://github.com/openpmix/openpmix/releases/tag/v4.0.1"},
  };
  return faults;
}

std::vector<KnownFault> known_faults_of(const std::vector<MessageLibrary>& libraries) {
  std::vector<KnownFault> found;
  std::ranges::copy_if(known_faults(), std::back_inserter(found), [&](const KnownFault& fault) {
    return has(libraries, fault.library, fault.versions, fault) &&
           (fault.partner.empty() || has(libraries, fault.partner, fault.partner_versions, fault));
  });
  return found;
}

}  // namespace attnreg::app
