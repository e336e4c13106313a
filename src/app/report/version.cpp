#include "app/report/version.hpp"

#include <nlohmann/json.hpp>

#include "build_info.hpp"

namespace attnreg::app {

nlohmann::ordered_json build_facts() {
  return {{"version", build_info::version},
          {"git_revision", build_info::git_revision},
          {"compiler", build_info::compiler},
          {"build_type", build_info::build_type},
          {"flags", build_info::flags},
          {"native", build_info::native},
          {"mpi", build_info::mpi_version},
          {"eigen", build_info::eigen_version},
          {"openblas", build_info::openblas_version}};
}

std::string version_text(const std::string& mpi_library) {
  using std::string;
  const auto line = [](string label, std::string_view fact) {
    label.resize(14, ' ');
    return label + string(fact) + "\n";
  };
  return "attnreg " + string(build_info::version) + "\n" + line("git", build_info::git_revision) +
         line("compiler", build_info::compiler) +
         line("build",
              string(build_info::build_type) + (build_info::native ? ", for the CPU of the build machine" : "")) +
         line("flags", build_info::flags) + line("MPI", build_info::mpi_version) +
         line("MPI, running", mpi_library.substr(0, mpi_library.find_first_of(",\n"))) +
         line("Eigen", build_info::eigen_version) + line("OpenBLAS", build_info::openblas_version);
}

}  // namespace attnreg::app
