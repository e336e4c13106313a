#include "app/run/problem.hpp"

#include <sys/stat.h>
#include <cmath>

#include <nlohmann/json.hpp>

#include "app/report/text.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/csr_file.hpp"
#include "files/npy_header.hpp"
#include "losses/losses.hpp"

namespace attnreg::app {

namespace {

/// One value per row of the matrix, or of targets, which say so, one row of them.
void check_rows_of(const InputFile& file, const InputFile& matrix) {
  const auto& shape = file.header.shape;
  if (shape.empty() || matrix.header.shape.empty()) return;  // refused when loaded
  const bool targets = file.role == "targets";
  const std::int64_t rows = matrix.header.shape[0], columns = shape.size() == 1 ? 1 : shape[1];
  if (shape[0] == rows && (targets ? columns >= 1 : columns == 1)) return;
  const std::string expected = targets ? ", K): a column for each target, a row" : ",): one value";
  throw InvalidArgument(printable(file.header.path) + ": " + file.role + (targets ? " have" : " has") + " shape " +
                        file.header.shape_text() + ", expected (" + std::to_string(rows) + expected + " per row of " +
                        printable(matrix.header.path) +
                        (targets ? "" : ", which has shape " + matrix.header.shape_text()));
}

}  // namespace

InputFile examine(const std::string& role, const std::string& path) {
  InputFile file;
  file.role = role;
  if (role == "A" && is_npz(path)) {
    const NpzHeader found = read_npz_header(path);
    file.nonzeros = found.nonzeros;
    file.header.path = path;
    file.header.type = found.type;
    file.header.shape = {found.rows, found.columns};
  } else {
    file.header = read_npy_header(path);
  }
  struct stat facts {};
  if (::stat(path.c_str(), &facts) == 0) {
    file.bytes = facts.st_size;
    file.modified = utc_time(facts.st_mtime);
  }
  return file;
}

nlohmann::ordered_json to_json(const InputFile& file) {
  nlohmann::ordered_json json{
      {"path", file.header.path}, {"shape", file.header.shape}, {"dtype", file.header.dtype_text()}};
  if (file.nonzeros) {
    json["format"] = "csr";
    json["nonzeros"] = *file.nonzeros;
  } else {
    json["fortran_order"] = file.header.fortran_order;
  }
  json["bytes"] = file.bytes;
  json["modified"] = file.modified;
  return json;
}

OptionGroup model_options() {
  return {
      "Model, L(x) = phi(A x) + 1/2 |diag(w) A x|^2",
      {{"loss", 0, "NAME", Choice{loss_names()}, "softmax", "phi"},
       {"weight", 0, "W", Number{0}, "1e-4",
        "w, the same for all rows (not its square). The larger, the smaller is A x: with w times the number of rows "
        "far above 10 nothing is fitted"},
       {"weights", 0, "FILE", Text{}, "", "w, one value per row of A, in place of --weight"}}};
}

std::vector<InputFile> examine_problem(const Arguments& arguments) {
  std::vector<InputFile> files{examine("A", arguments.text("A"))};
  const std::string target = has_targets(arguments) ? "targets" : "b";
  files.push_back(examine(target, arguments.text(target)));
  if (arguments.given("weights")) files.push_back(examine("w", arguments.text("weights")));
  for (std::size_t k = 1; k < files.size(); ++k) check_rows_of(files[k], files[0]);
  return files;
}

bool has_targets(const Arguments& arguments) {
  return !arguments.syntax().instead_of_last.empty() && arguments.given(arguments.syntax().instead_of_last);
}

Problem load_problem(const Communicator& communicator, const Arguments& arguments) {
  RowMatrix A = load_matrix(communicator, arguments.text("A"), storage_choice(arguments));
  Eigen::VectorXd b;
  if (!has_targets(arguments)) b = load_rows_vector(communicator, arguments.text("b"), "b", A.partition());
  Eigen::VectorXd w = arguments.given("weights")
                          ? load_rows_vector(communicator, arguments.text("weights"), "w", A.partition())
                          : Eigen::VectorXd::Constant(A.rows_local(), arguments.number("weight"));
  return {std::move(A), std::move(b), std::move(w)};
}

StorageChoice storage_choice(const Arguments& arguments) {
  const std::string name = arguments.text("storage");
  return name == "float" ? StorageChoice::float32 : name == "double" ? StorageChoice::float64 : StorageChoice::as_file;
}

Option scale_option(std::string_view help) {
  return {"scale", 0, "FACTOR", Choice{{"1", "1/d", "1/sqrt-d"}}, "1", help};
}

double scale_factor(const Arguments& arguments, std::int64_t d) {
  const std::string name = arguments.text("scale");
  if (name == "1") return 1;
  return name == "1/d" ? 1 / static_cast<double>(d) : 1 / std::sqrt(static_cast<double>(d));
}

}  // namespace attnreg::app
