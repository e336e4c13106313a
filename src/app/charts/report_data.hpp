#pragma once

#include <Eigen/Core>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "app/options/options.hpp"
#include "app/run/run_files.hpp"
#include "attnreg/communicator.hpp"

namespace attnreg::app {

/// What a run directory, or that of a command which writes report.json, holds.
struct ReportedRun {
  std::string directory;
  nlohmann::ordered_json run, timing;  ///< run.json or report.json, timing.json; null: there is none
  CsvTable history, path, targets;
};

/// What is made anew of the data that a run read and of its result. On rank 0; empty where it was not made, and `notes`
/// say why.
struct ReportData {
  Eigen::VectorXd b, fitted;                                     ///< all rows
  Eigen::VectorXd scores, singular_values, hessian_eigenvalues;  ///< leverage scores of A; of A; at x
  struct Map {
    std::string name;  ///< "sequence 0, head 2"
    Eigen::MatrixXd fitted, target;
  };
  std::vector<Map> maps;          ///< attention matrices, or outputs of layers, of the first sequences and heads
  Eigen::VectorXd spectrum_of_X;  ///< singular values of X, or of the first head's
  std::vector<std::string> notes;
};

/// Local, for one rank. Throws `InvalidArgument`: the directory has neither run.json nor report.json, or what is there
/// cannot be read.
ReportedRun read_run(const std::string& directory);

/// Local. The command line of a run, from the name of the command on; paths as they were given.
std::vector<std::string> words_of(const nlohmann::ordered_json& run);

using FindSyntax = std::function<const Syntax&(const std::string& command)>;

/// Collective. Reads the data of a solve or an attention regression again, unless they have changed: up to 6 reads of A
/// and n d^2 flops. What is too large to be worth it is left out. run: of rank 0.
ReportData report_data(const Communicator& communicator, const ReportedRun& run, const FindSyntax& find);

}  // namespace attnreg::app
