#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace attnreg::app {

/// What the program was built from.
nlohmann::ordered_json build_facts();

/// The page of --version. `mpi_library`: what MPI says of itself at run time.
std::string version_text(const std::string& mpi_library);

}  // namespace attnreg::app
