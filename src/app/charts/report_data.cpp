#include "app/charts/report_data.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "algebra/dense_factors.hpp"
#include "app/options/parsed_json.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "app/run/sequence_list.hpp"
#include "attention/attention_passes.hpp"
#include "attnreg/files.hpp"
#include "attnreg/leverage.hpp"
#include "attnreg/regression.hpp"
#include "errors/printable.hpp"
#include "files/source_name.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

namespace attnreg::app {

namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kRowsOnRoot = 20'000'000;                        // whose values rank 0 takes
constexpr Index kMostColumns = 1024, kMostMaps = 4, kMostOfMap = 4096;  // of spectra; of heat maps

ordered_json json_in(const std::string& path) {
  std::ifstream file(path);
  if (!file.is_open()) return nullptr;
  auto json = parsed_json(file);
  if (!json.is_object()) throw InvalidArgument(printable(path) + ": expected a JSON object");
  return json;
}

std::string text_in(const ordered_json& json, const char* name) {
  return json.contains(name) && json[name].is_string() ? json[name].get<std::string>() : std::string();
}

std::string absolute(const std::string& path, const std::string& directory) {
  return path.empty() || path[0] == '/' || directory.empty() ? path : directory + "/" + path;
}

/// Local. Why the inputs are not those of the run any more; empty: they are.
std::string change_of_inputs(const ordered_json& run) {
  if (!run.contains("inputs") || !run["inputs"].is_object()) return "the run does not say what it read";
  for (const auto& [role, input] : run["inputs"].items()) {
    const std::string name = text_in(input, "path"),
                      path = absolute(name.substr(0, name.rfind('[')), text_in(run, "directory"));
    std::error_code error;
    const auto bytes = std::filesystem::file_size(path, error);
    if (error) return printable(path) + " is not there any more";
    if (!input.contains("bytes") || input["bytes"] != static_cast<std::int64_t>(bytes))
      return printable(path) + " has changed since the run";
  }
  return "";
}

/// Collective. The numbers of all ranks on rank 0.
Eigen::VectorXd on_root(const Communicator& communicator, const Eigen::VectorXd& local) {
  const auto all = communicator.gather_to_root({local.data(), static_cast<std::size_t>(local.size())});
  return Eigen::Map<const Eigen::VectorXd>(all.data(), std::ssize(all));
}

Eigen::VectorXd eigenvalues(const Eigen::MatrixXd& matrix) {
  if (matrix.size() == 0) return {};
  const SymmetricEigen eigen = symmetric_eigen(matrix, false);
  return eigen.finite ? eigen.values.reverse().eval() : Eigen::VectorXd();
}

/// Collective.
void add_regression(const Communicator& communicator, const Arguments& arguments, const std::string& directory,
                    ReportData& data) {
  const Problem problem = load_problem(communicator, arguments);
  const RowMatrix& A = problem.A;
  const Index d = A.columns();
  const Eigen::VectorXd x = load_vector(communicator, directory + "/x.npy", "x", d);
  RegressionModel model = regression_model(arguments);
  model.offset = problem.offset;
  if (A.rows_global() <= kRowsOnRoot) {
    data.b = on_root(communicator, problem.b);
    data.fitted = on_root(communicator, predict(A, x, model));
    data.scores = on_root(communicator, leverage_scores(A, {}, {.jl_columns = 64}).scores);
    std::ranges::sort(data.scores, std::greater<>());
  } else {
    data.notes.push_back("f and the leverage scores are left out: there are more than 2e7 rows");
  }
  if (d > kMostColumns) {
    data.notes.push_back("spectra are left out: there are more than 1024 columns");
    return;
  }
  Eigen::MatrixXd gram = signed_gram(A, {Eigen::VectorXd::Ones(A.rows_local())}).positive;
  communicator.sum_to_root(span_of(gram));
  const Eigen::MatrixXd H = evaluate_regression(A, problem.b, problem.w, x, model, true).hessian;
  if (!communicator.is_root()) return;
  data.singular_values = eigenvalues(gram).cwiseMax(0).cwiseSqrt();
  data.hessian_eigenvalues = eigenvalues(H);
}

/// X of a head: X.npy, else P Q^T. Collective.
RowMajorMatrix load_X(const Communicator& communicator, const std::string& directory, const std::string& part) {
  std::int64_t with_X = 0;
  std::error_code ignored;
  if (communicator.is_root()) with_X = std::filesystem::exists(directory + "/X.npy", ignored) ? 1 : 0;
  if (communicator.max(with_X) != 0) return load_replicated_matrix(communicator, directory + "/X.npy" + part);
  const RowMajorMatrix P = load_replicated_matrix(communicator, directory + "/P.npy" + part);
  return P * load_replicated_matrix(communicator, directory + "/Q.npy" + part).transpose();
}

void fit_ones(RowMajorMatrix& matrix, Index columns) {  // of a bias
  if (matrix.cols() + 1 != columns) return;
  matrix.conservativeResize(Eigen::NoChange, columns);
  matrix.rightCols(1).setOnes();
}

/// Collective. One sequence and one head.
ReportData::Map attention_map(const Communicator& communicator, AttentionSequence& sequence, const RowMajorMatrix& X,
                              const RowMajorMatrix& Y, const RowMajorMatrix& target) {
  fit_ones(sequence.queries, X.rows());
  fit_ones(sequence.keys, X.cols());
  const SequenceView view(sequence, communicator.rank());
  RowMajorMatrix F = sequence.queries * X * sequence.keys.transpose();
  if (view.visible) view.visible->fill_hidden(F, 0, 0, -std::numeric_limits<double>::infinity());
  for (Index i = 0; i < F.rows(); ++i) {
    F.row(i).array() -= F.row(i).maxCoeff();
    F.row(i) = F.row(i).array().exp();
    F.row(i) /= F.row(i).sum();
  }
  if (Y.size() > 0) F = F * *sequence.values * Y;
  const auto gathered = [&](const RowMajorMatrix& rows) {
    const auto all = communicator.gather_to_root(span_of(rows));
    const Index columns = rows.cols();
    return Eigen::MatrixXd(
        Eigen::Map<const RowMajorMatrix>(all.data(), columns > 0 ? std::ssize(all) / columns : 0, columns));
  };
  return {"", gathered(F), gathered(target)};
}

/// Collective.
void add_attention(const Communicator& communicator, const Arguments& arguments, const std::string& directory,
                   ReportData& data) {
  std::vector<SequenceFiles> files;
  communicator.agree([&] {
    files = examine_sequences(arguments);
    if (std::ssize(files) > kMostMaps) files.resize(kMostMaps);
  });
  const auto& shape = files[0].target.header.shape;
  const Index heads = shape.size() == 3 ? std::min<Index>(shape[0], kMostMaps) : 0;
  RowMajorMatrix Y(0, 0);
  if (files[0].values) Y = load_replicated_matrix(communicator, directory + "/Y.npy");
  auto sequences = heads > 0 ? load_inputs(communicator, files) : load_sequences(communicator, files);
  for (Index h = 0; h < std::max<Index>(heads, 1); ++h) {
    const RowMajorMatrix X = load_X(communicator, directory, heads > 0 ? "[" + std::to_string(h) + "]" : "");
    if (h == 0 && std::min(X.rows(), X.cols()) <= kMostColumns)
      data.spectrum_of_X = eigenvalues(X.transpose() * X).cwiseMax(0).cwiseSqrt().head(std::min(X.rows(), X.cols()));
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      auto& sequence = sequences[s];
      if (sequence.partition.rows_global() > kMostOfMap || sequence.keys.rows() > kMostOfMap) {
        data.notes.push_back("sequence " + std::to_string(s) + " is too long for a map");
        continue;
      }
      const RowMajorMatrix target =
          heads > 0 ? load_matrix_rows(communicator, part_of(files[s].target.header.path, h), files[s].target.role,
                                       sequence.partition, sequence.keys.rows())
                    : sequence.target;
      auto map = attention_map(communicator, sequence, X, Y, target);
      map.name = "sequence " + std::to_string(s) + (heads > 0 ? ", head " + std::to_string(h) : "");
      data.maps.push_back(std::move(map));
    }
  }
}

}  // namespace

ReportedRun read_run(const std::string& directory) {
  ReportedRun run{directory,
                  json_in(directory + "/run.json"),
                  json_in(directory + "/timing.json"),
                  read_history(directory),
                  read_csv(directory + "/path.csv"),
                  read_csv(directory + "/targets.csv")};
  if (run.run.is_null()) run.run = json_in(directory + "/report.json");
  if (run.run.is_null())
    throw InvalidArgument(printable(directory) + " holds no finished run: there is neither run.json nor report.json");
  return run;
}

std::vector<std::string> words_of(const nlohmann::ordered_json& run) {
  std::string command = text_in(run, "command");
  const std::string schema = text_in(run, "schema");
  if (command.empty())
    command = schema.find("sparsify") != schema.npos  ? "sparsify"
              : schema.find("private") != schema.npos ? "private"
                                                      : "experiment";
  std::vector<std::string> words{command};
  if (!run.contains("configuration") || !run["configuration"].is_object()) return words;
  const std::set<std::string> positionals{"A", "b", "X", "NAME"};
  for (const auto& [name, entry] : run["configuration"].items()) {
    if (!entry.is_object() || !entry.contains("value") || !entry.contains("source") || entry["source"] == "default")
      continue;
    const ordered_json& value = entry["value"];
    const bool is_positional = positionals.contains(name);
    if (!is_positional) words.push_back("--" + name);
    if (value.is_string())
      words.push_back(value.get<std::string>());
    else if (value.is_number_integer())
      words.push_back(std::to_string(value.get<std::int64_t>()));
    else if (value.is_number())
      words.push_back(plain(value.get<double>(), 17));
  }
  return words;
}

ReportData report_data(const Communicator& communicator, const ReportedRun& run, const FindSyntax& find) {
  ReportData data;
  ordered_json message;
  if (communicator.is_root()) {
    const std::string command = text_in(run.run, "command");
    std::string why = command.empty() ? "-" : change_of_inputs(run.run);
    if (command == "solve" && run.targets.lines() > 0) why = "of several targets, nothing is made anew";
    auto words = words_of(run.run);
    const std::string begun_in = text_in(run.run, "directory");
    const std::set<std::string> paths{"--weights", "--offset", "--queries",  "--keys",
                                      "--values",  "--target", "--sequences"};
    const std::size_t positionals = command == "solve" ? 2 : 0;
    for (std::size_t k = 1; k < words.size(); ++k)
      if (k <= positionals || paths.contains(words[k - 1])) words[k] = absolute(words[k], begun_in);
    for (std::size_t k = 1; k < words.size(); ++k)
      if (words[k - 1] == "--mask" && words[k].find_first_of("./") != std::string::npos)
        words[k] = absolute(words[k], begun_in);
    message = {{"why", why}, {"words", words}, {"directory", run.directory}};
  }
  message =
      ordered_json::parse(communicator.broadcast(message.dump(-1, ' ', false, ordered_json::error_handler_t::replace)));
  const std::string why = message["why"], directory = message["directory"];
  if (!why.empty()) {
    if (why != "-") data.notes.push_back("nothing was made anew from the data: " + why);
    return data;
  }
  try {
    const std::vector<std::string> words = message["words"];
    const Arguments arguments(find(words[0]), std::span(words.begin() + 1, words.end()));
    if (words[0] == "solve") add_regression(communicator, arguments, directory, data);
    if (words[0] == "attention") add_attention(communicator, arguments, directory, data);
  } catch (const Error& error) {
    if (error.scope() != Error::Scope::all_ranks || error.code() == ExitCode::limit) throw;
    data.notes.push_back(std::string("not everything could be made anew from the data: ") + error.what());
  }
  return data;
}

}  // namespace attnreg::app
