// Matrices of Python's, without copies; what is not a solve: scores, columns that keep X X^T, problems.
#include <Eigen/Core>

#include "attnreg/files.hpp"
#include "attnreg/leverage.hpp"
#include "attnreg/sparsifier.hpp"
#include "call.hpp"
#include "options.hpp"
#include "problems/problem_generator.hpp"

namespace attnreg::python {

namespace {

/// Collective. All ranks have the same number of columns and the same type of numbers, or all throw.
void check_alike(const Communicator& communicator, const RowMatrix& rows) {
  const std::int64_t kind = 2 * static_cast<std::int64_t>(rows.storage()) + (rows.is_sparse() ? 1 : 0);
  const auto differ = [&](std::int64_t value) { return communicator.min(value) != communicator.max(value); };
  const bool columns = differ(rows.columns()), kinds = differ(kind);
  if (columns)
    throw InvalidArgument("the rows of A on rank " + std::to_string(communicator.rank()) + " have " +
                              std::to_string(rows.columns()) + " columns, others have other numbers of columns",
                          Error::Scope::all_ranks);
  if (kinds)
    throw InvalidArgument("the ranks have rows of A of different types; give all of them one dtype, dense or sparse",
                          Error::Scope::all_ranks);
}

/// Collective.
std::shared_ptr<Matrix> dense(Call& call, const py::array& array) {
  const Communicator& communicator = call.communicator();
  const Index rows = array.shape(0), columns = array.shape(1);
  const void* data = array.data();
  const char kind = array.dtype().kind();
  const auto bytes = array.dtype().itemsize();
  RowMatrix matrix = call.run([&] {
    const auto partition = RowPartition::from_local(communicator, rows);
    const auto view = [&]<class T>(const T* numbers) {
      return RowMatrix::view(communicator, partition, numbers, columns);
    };
    RowMatrix made = kind != 'f'  ? view(static_cast<const Eigen::bfloat16*>(data))
                     : bytes == 8 ? view(static_cast<const double*>(data))
                     : bytes == 4 ? view(static_cast<const float*>(data))
                                  : view(static_cast<const Eigen::half*>(data));
    check_alike(communicator, made);
    return made;
  });
  return call.add(std::move(matrix), array);
}

template <class T>
std::span<const T> span_of_array(const py::array& array) {
  return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

/// Collective. offsets: int64, indices: int32, values: double or float.
std::shared_ptr<Matrix> sparse(Call& call, const py::array& offsets, const py::array& indices, const py::array& values,
                               Index columns) {
  const Communicator& communicator = call.communicator();
  CsrView view;
  view.columns = columns;
  view.offsets = span_of_array<std::int64_t>(offsets);
  view.indices = span_of_array<std::int32_t>(indices);
  view.is_single = values.dtype().itemsize() == 4;
  if (view.is_single)
    view.singles = span_of_array<float>(values);
  else
    view.values = span_of_array<double>(values);
  RowMatrix matrix = call.run([&] {
    communicator.agree([&] { check_rows(view); });
    RowMatrix made = RowMatrix::view(communicator, RowPartition::from_local(communicator, view.rows()), view);
    check_alike(communicator, made);
    return made;
  });
  return call.add(std::move(matrix), py::make_tuple(offsets, indices, values));
}

/// Collective. Of a file; each rank reads its own rows.
std::shared_ptr<Matrix> load(Call& call, const std::string& path) {
  RowMatrix matrix = call.run([&] { return load_matrix(call.communicator(), path, StorageChoice::as_file); });
  return call.add(std::move(matrix), py::none());
}

/// Collective. This rank's values of a file with one per row.
py::array load_rows(Call& call, const std::string& path, const std::string& role, const Matrix& A) {
  const RowPartition& partition = A.rows.value().partition();
  return array_of(call.run([&] {
    return role == "offset" ? load_offset(call.communicator(), path, partition)
                            : load_rows_vector(call.communicator(), path, role, partition);
  }));
}

py::dict scores(Call& call, const Matrix& A, const DoubleArray& weights, bool exact, const py::dict& options) {
  LeverageOptions chosen;
  take(options, "sketch_rows", chosen.sketch_rows);
  take(options, "nonzeros", chosen.nonzeros);
  take(options, "jl_columns", chosen.jl_columns);
  take(options, "seed", chosen.seed);
  chosen.row_weights = RowWeights::roots;
  const Eigen::VectorXd w = vector_of(weights);
  LeverageScores found = call.run([&] {
    return exact ? exact_leverage_scores(*A.rows, w, ExactRoute::qr, RowWeights::roots)
                 : leverage_scores(*A.rows, w, chosen);
  });
  py::dict result;
  result["scores"] = array_of(std::move(found.scores));
  result["sum"] = found.sum;
  result["largest"] = found.largest;
  result["coherence"] = found.coherence;
  result["rank"] = found.rank;
  return result;
}

py::dict error_of(const AttentionError& error) {
  py::dict result;
  result["gram"] = error.gram;
  result["spectral"] = error.spectral;
  result["entry"] = error.entry;
  result["entry_bound"] = error.entry_bound;
  result["output"] = error.output;
  return result;
}

/// X: its columns as rows. values: V, replicated; no rows: nothing is measured.
py::dict sparsify_rows(Call& call, const Matrix& X, const py::dict& options, const DoubleArray& values, double scale) {
  SparsifyOptions chosen;
  chosen.method = static_cast<ColumnMethod>(options["method"].cast<int>());
  take(options, "epsilon", chosen.epsilon);
  take(options, "delta", chosen.delta);
  take(options, "columns", chosen.columns);
  take(options, "with_replacement", chosen.with_replacement);
  take(options, "seed", chosen.seed);
  const RowMajorMatrix V = matrix_of(values);
  struct Found {
    Sparsifier sparsifier;
    RowMajorMatrix Y;
    AttentionErrors errors;
  };
  Found found = call.run([&] {
    Sparsifier chosen_columns = sparsify(*X.rows, chosen);
    const RowMatrix& Y = chosen_columns.Y;
    // Y times unit vectors: its rows, in double.
    RowMajorMatrix rows(Y.rows_local(), Y.columns());
    for (Index j = 0; j < Y.columns(); ++j) rows.col(j) = Y.multiply(Eigen::VectorXd::Unit(Y.columns(), j));
    AttentionErrors errors;
    if (V.rows() > 0) {
      const std::vector<RowMatrix> Ys{Y, no_columns(*X.rows)};
      errors = attention_errors(*X.rows, Ys, V, {.scale = scale});
    }
    return Found{std::move(chosen_columns), std::move(rows), std::move(errors)};
  });
  py::dict result;
  result["Y"] = array_of(std::move(found.Y));
  result["columns"] = array_of(std::move(found.sparsifier.columns));
  result["weights"] = array_of(std::move(found.sparsifier.weights));
  result["columns_global"] = found.sparsifier.columns_global;
  result["draws"] = found.sparsifier.draws;
  result["certified_epsilon"] = found.sparsifier.certified_epsilon;
  if (!found.errors.errors.empty()) {
    result["errors"] = error_of(found.errors.errors[0]);
    result["errors_of_zero"] = error_of(found.errors.errors[1]);
    result["largest_logit"] = found.errors.largest_logit;
  }
  return result;
}

py::dict generate(Call& call, const py::dict& options, const std::string& directory) {
  ProblemOptions chosen;
  chosen.preset = preset_by_name(options["preset"].cast<std::string>());
  take(options, "loss", chosen.loss);
  take(options, "rows", chosen.rows);
  take(options, "columns", chosen.columns);
  take(options, "seed", chosen.seed);
  take(options, "spread", chosen.spread);
  take(options, "weight_scale", chosen.weight_scale);
  take(options, "decay", chosen.decay);
  take(options, "neff", chosen.neff);
  take(options, "nonzeros_per_row", chosen.nonzeros_per_row);
  take(options, "logit_noise", chosen.logit_noise);
  take(options, "zipf", chosen.zipf);
  if (options.contains("dtype") && options["dtype"].cast<std::string>() == "float32") chosen.type = Storage::float32;
  const ProblemFacts facts = call.run([&] { return generate_problem(call.communicator(), chosen, directory); });
  py::dict result;
  result["z_true_std"] = facts.z_true_std;
  result["z_true_max"] = facts.z_true_max;
  result["b_max"] = facts.b_max;
  result["neff_b"] = facts.neff_b;
  result["w_mean"] = facts.w_mean;
  result["loss_at_0"] = facts.loss_at_0;
  result["reg_at_xtrue"] = facts.reg_at_xtrue;
  return result;
}

}  // namespace

void define_matrices(py::module_& module) {
  module.def("dense", dense);
  module.def("sparse", sparse);
  module.def("load", load);
  module.def("load_rows", load_rows);
  module.def("scores", scores);
  module.def("sparsify", sparsify_rows);
  module.def("generate", generate);
}

}  // namespace attnreg::python
