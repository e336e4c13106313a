#pragma once

#include <mpi.h>

#include <Eigen/Core>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/files.hpp"
#include "files/source.hpp"
#include "problems/problem_generator.hpp"

namespace attnreg {

/// A directory of this test, made by rank 0 of `communicator` and gone with the object. Collective at both ends.
class TestDirectory {
 public:
  explicit TestDirectory(const Communicator& communicator) : communicator_(communicator) {
    std::string name = (std::filesystem::temp_directory_path() / "attnreg-XXXXXX").string();
    if (communicator_.is_root() && mkdtemp(name.data()) == nullptr) name.clear();
    path_ = communicator_.broadcast(name);
  }
  ~TestDirectory() {
    communicator_.barrier();
    std::error_code ignored;
    if (communicator_.is_root() && !path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  Communicator communicator_;
  std::string path_;
};

inline std::string file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The files of one problem, dense.
struct GeneratedFiles {
  RowMajorMatrix A;
  Eigen::VectorXd b, w, x_true;
  std::vector<Storage> types;  ///< in the order above
};

inline RowMajorMatrix read_matrix(const std::string& path, std::vector<Storage>& types) {
  const Source header = open_source(path);
  types.push_back(header.type);
  RowMajorMatrix values(header.shape[0], header.shape.size() > 1 ? header.shape[1] : 1);
  read_rows(header, 0, header.shape[0], std::span<double>(values.data(), static_cast<std::size_t>(values.size())));
  return values;
}

/// Local, after a barrier.
inline GeneratedFiles read_files(const std::string& directory) {
  GeneratedFiles files;
  files.A = read_matrix(directory + "/A.npy", files.types);
  files.b = read_matrix(directory + "/b.npy", files.types);
  files.w = read_matrix(directory + "/w.npy", files.types);
  files.x_true = read_matrix(directory + "/x_true.npy", files.types);
  return files;
}

inline std::vector<double> fact_values(const ProblemFacts& facts) {
  return {facts.z_true_std,
          facts.z_true_max,
          facts.b_max,
          facts.neff_b,
          facts.w_mean,
          facts.loss_at_0,
          facts.reg_at_xtrue,
          facts.row_norm2_max_over_mean.value_or(0),
          facts.row_norm2_top_quarter_d_share.value_or(0)};
}

inline ProblemOptions problem(Preset preset, std::int64_t rows, std::int64_t columns) {
  ProblemOptions options;
  options.preset = preset;
  options.rows = rows;
  options.columns = columns;
  return options;
}

/// Collective. Generates with all ranks; afterwards every rank may read the files.
inline ProblemFacts generate(const Communicator& communicator, const ProblemOptions& options,
                             const TestDirectory& directory) {
  const auto facts = generate_problem(communicator, options, directory.path());
  communicator.barrier();
  return facts;
}

/// Those with a dense A.
constexpr Preset all_presets[] = {Preset::easy, Preset::practical, Preset::illcond, Preset::coherent, Preset::misfit};

}  // namespace attnreg
