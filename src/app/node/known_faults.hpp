#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attnreg::app {

/// A library that messages, or the start of a job, go through.
struct MessageLibrary {
  std::string name;     ///< "Open MPI", "MPICH", "PMIx", "UCX"
  std::string version;  ///< "4.1.4"
  std::string package;  ///< version of the distribution's package, "4.2.2-1+deb12u1"; empty: none is known
};

/// Local. The MPI library, named and numbered from what MPI_Get_library_version says ("Open MPI v4.1.4, package: ...",
/// "MPICH Version: 4.0.2"); other libraries have their first line for a name and no version.
MessageLibrary mpi_library(std::string_view description);

/// Local. The MPI library, and those of PMIx and UCX that it has loaded, as shared libraries of their own, into this
/// process. MPI must be initialized; asks /var/lib/dpkg/status for the packages.
std::vector<MessageLibrary> message_libraries();

/// A fault of certain versions, from a public report.
struct KnownFault {
  struct Versions {
    std::string_view first, mended;  ///< first <= version < mended; mended empty: first alone
  };
  std::string_view library;
  std::vector<Versions> versions;
  std::string_view partner = {};  ///< only together with these versions of this library; empty: by itself
  std::vector<Versions> partner_versions = {};
  std::vector<std::string_view> mended_packages = {};  ///< packages whose version begins so have been mended
  bool numbers = false;  ///< results may be wrong; otherwise only starting or security suffers
  std::string_view harm = {}, cure = {}, source = {};
};

/// Local. All faults that the doctor knows. One is added with the address of the report or release note that names the
/// versions; nothing goes in from memory.
const std::vector<KnownFault>& known_faults();

/// Local. Those that these libraries have. A version that is not known matches nothing, one like "4.2.2rc2" counts as
/// 4.2.2.
std::vector<KnownFault> known_faults_of(const std::vector<MessageLibrary>& libraries);

}  // namespace attnreg::app
