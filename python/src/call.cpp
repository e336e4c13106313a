#include "call.hpp"

#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>
#include <string_view>
#include <utility>

#include "attnreg/error.hpp"
#include "errors/lone_failure.hpp"

namespace attnreg::python {

namespace mpi {

namespace {

bool is_ours = false;
pid_t owner = 0;
std::atomic<int> calls_at_work{0};

/// Names of the variables of the environment.
std::set<std::string> variables() {
  std::set<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    names.emplace(text.substr(0, text.find('=')));
  }
  return names;
}

bool flag(int (*question)(int*)) {
  int answer = 0;
  question(&answer);
  return answer != 0;
}

}  // namespace

void start() {
  if (flag(MPI_Finalized)) throw InvalidArgument("MPI was finalised before: attnreg works no more in this process");
  if (flag(MPI_Initialized)) return;
  const std::set<std::string> before = variables();
  const auto has = [](const char* variable) { return std::getenv(variable) != nullptr; };
  // Without mpirun Open MPI would start a daemon, which an interrupt from the keyboard ends, and the process with it.
  if (!has("OMPI_COMM_WORLD_SIZE") && !has("PMIX_RANK")) setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  // What Open MPI leaves in the environment would keep a child from being an mpirun.
  for (const std::string& name : variables())
    if (!before.contains(name)) unsetenv(name.c_str());
  is_ours = true;
  owner = getpid();
}

void finish() {
  if (!is_ours || owner != getpid() || calls_at_work != 0 || flag(MPI_Finalized)) return;
  const py::gil_scoped_release released;
  MPI_Finalize();
}

void abort(int rank) {
  const ExitCode code = code_of_lone_failure();
  std::fprintf(stderr, "attnreg: %s\n", text_of_lone_failure(rank).c_str());
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::abort();
}

std::string library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  return {text, static_cast<std::size_t>(length)};
}

}  // namespace mpi

namespace {

// Of the call that SIGINT stops: there is one main thread.
std::atomic<const Communicator*> interruptible{nullptr};
std::atomic<int> interrupts{0};
struct sigaction before_call {};

extern "C" void attnreg_python_interrupt(int signal, siginfo_t* information, void* context) {
  if (interrupts.fetch_add(1) == 0) {
    if (const Communicator* communicator = interruptible.load()) communicator->ask_to_stop();
    return;
  }
  if ((before_call.sa_flags & SA_SIGINFO) != 0)
    before_call.sa_sigaction(signal, information, context);
  else if (before_call.sa_handler != SIG_DFL && before_call.sa_handler != SIG_IGN)
    before_call.sa_handler(signal);
}

bool is_in_main_thread() {
  const auto threading = py::module_::import("threading");
  return threading.attr("current_thread")().is(threading.attr("main_thread")());
}

bool python_has_its_own_handler() {
  const auto signal = py::module_::import("signal");
  return signal.attr("getsignal")(signal.attr("SIGINT")).is(signal.attr("default_int_handler"));
}

}  // namespace

StopsOnInterrupt::StopsOnInterrupt(const Communicator& communicator) {
  if (interruptible.load() != nullptr || !is_in_main_thread() || !python_has_its_own_handler()) return;
  interrupts = 0;
  interruptible = &communicator;
  struct sigaction action {};
  action.sa_sigaction = attnreg_python_interrupt;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  is_installed_ = sigaction(SIGINT, &action, &before_call) == 0;
}

StopsOnInterrupt::~StopsOnInterrupt() {
  if (!is_installed_) return;
  sigaction(SIGINT, &before_call, nullptr);
  interruptible = nullptr;
}

bool StopsOnInterrupt::is_interrupted() const { return is_installed_ && interrupts != 0; }

Call::Call(std::uintptr_t address) {
  mpi::start();
  const MPI_Comm parent = address == 0 ? MPI_COMM_SELF : *reinterpret_cast<const MPI_Comm*>(address);
  ++mpi::calls_at_work;
  try {
    run([&] { communicator_.emplace(parent); });
  } catch (...) {
    --mpi::calls_at_work;
    throw;
  }
}

std::recursive_mutex& Call::mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

void Call::agree(int code, const std::string& message) {
  run([&] {
    communicator_->agree([&] {
      if (code != 0) throw Error(static_cast<ExitCode>(code), message);
    });
  });
}

std::shared_ptr<Matrix> Call::add(RowMatrix rows, py::object owner) {
  matrices_.push_back(std::make_shared<Matrix>(Matrix{std::move(rows), std::move(owner)}));
  return matrices_.back();
}

void Call::close() {
  if (!communicator_) return;
  run([&] {
    for (auto& matrix : matrices_) matrix->rows.reset();
    communicator_.reset();
  });
  for (auto& matrix : matrices_) matrix->owner = py::none();
  --mpi::calls_at_work;
}

std::function<void(const IterationRecord&)> Call::recorder(const py::object& callback, const std::string& phase) {
  const bool shows = !callback.is_none();
  return [this, &callback, shows, phase](const IterationRecord& record) {
    records_.push_back({phase, record});
    if (!shows || failure_) return;
    const py::gil_scoped_acquire acquired;
    try {
      const py::object answer =
          callback(phase, record.iteration, record.value, record.gradient_norm, record.relative_gradient, record.step,
                   record.radius, record.cg_iterations, record.reads_of_a, record.collectives, record.seconds);
      if (answer.cast<bool>()) communicator_->ask_to_stop();
    } catch (...) {
      failure_ = std::current_exception();
      communicator_->ask_to_stop();
    }
  };
}

void Call::finish_callback() {
  const std::exception_ptr own = std::exchange(failure_, nullptr);
  const int rank = communicator_->rank();
  try {
    agree(own ? static_cast<int>(ExitCode::usage) : 0,
          "the callback of rank " + std::to_string(rank) + " raised an exception");
  } catch (const Error&) {
    if (!own) throw;
  }
  if (own) std::rethrow_exception(own);
}

py::list Call::history() const {
  py::list rows;
  for (const auto& [phase, record] : records_)
    rows.append(py::make_tuple(phase, record.iteration, record.value, record.gradient_norm, record.relative_gradient,
                               record.step, record.radius, record.cg_iterations, record.reads_of_a, record.collectives,
                               record.seconds));
  return rows;
}

namespace {

/// An array over the numbers of something that it owns.
template <class Owner, class Scalar>
py::array owned(Owner values, std::vector<py::ssize_t> shape, std::vector<py::ssize_t> strides, const Scalar*) {
  auto* held = new Owner(std::move(values));
  const py::capsule owner(held, [](void* pointer) { delete static_cast<Owner*>(pointer); });
  return py::array_t<Scalar>(std::move(shape), std::move(strides), held->data(), owner);
}

constexpr py::ssize_t kItem = sizeof(double);

}  // namespace

py::array array_of(Eigen::VectorXd values) {
  const py::ssize_t size = values.size();
  return owned(std::move(values), {size}, {kItem}, static_cast<const double*>(nullptr));
}
py::array array_of(RowMajorMatrix values) {
  const py::ssize_t rows = values.rows(), columns = values.cols();
  return owned(std::move(values), {rows, columns}, {kItem * columns, kItem}, static_cast<const double*>(nullptr));
}
py::array array_of(Eigen::MatrixXd values) {
  const py::ssize_t rows = values.rows(), columns = values.cols();
  return owned(std::move(values), {rows, columns}, {kItem, kItem * rows}, static_cast<const double*>(nullptr));
}
py::array array_of(std::vector<std::int64_t> values) {
  const auto size = static_cast<py::ssize_t>(values.size());
  return owned(std::move(values), {size}, {sizeof(std::int64_t)}, static_cast<const std::int64_t*>(nullptr));
}

Eigen::VectorXd vector_of(const DoubleArray& array) {
  if (array.ndim() != 1) throw InvalidArgument("expected an array of one axis");
  return Eigen::Map<const Eigen::VectorXd>(array.data(), array.shape(0));
}

RowMajorMatrix matrix_of(const DoubleArray& array) {
  if (array.ndim() != 2) throw InvalidArgument("expected an array of two axes");
  return Eigen::Map<const RowMajorMatrix>(array.data(), array.shape(0), array.shape(1));
}

RidgeWeights weights_of(const py::object& w) {
  if (py::isinstance<py::float_>(w)) return w.cast<double>();
  return vector_of(w.cast<DoubleArray>());
}

void define_call(py::module_& module) {
  py::class_<Matrix, std::shared_ptr<Matrix>>(module, "Matrix")
      .def_property_readonly("shape",
                             [](const Matrix& matrix) {
                               return py::make_tuple(matrix.rows.value().rows_global(), matrix.rows.value().columns());
                             })
      .def_property_readonly("arrays", [](const Matrix& matrix) { return matrix.owner; })
      .def_property_readonly("rows_local", [](const Matrix& matrix) { return matrix.rows.value().rows_local(); })
      .def_property_readonly("first_row", [](const Matrix& matrix) { return matrix.rows.value().first_row(); })
      .def_property_readonly("reads", [](const Matrix& matrix) { return matrix.rows.value().reads(); });
  py::class_<Call>(module, "Call")
      .def(py::init<std::uintptr_t>())
      .def("agree", &Call::agree)
      .def("is_alike",
           [](Call& call, std::int64_t value) {
             return call.run([&] { return call.communicator().min(value) == call.communicator().max(value); });
           })
      .def("close", &Call::close)
      .def_property_readonly("rank", [](const Call& call) { return call.communicator().rank(); })
      .def_property_readonly("size", [](const Call& call) { return call.communicator().size(); });
  module.def("start_mpi", &mpi::start);
  module.def("finish_mpi", &mpi::finish);
  module.def("mpi_library", &mpi::library);
  module.def("mpi_handle_bytes", [] { return sizeof(MPI_Comm); });
}

}  // namespace attnreg::python
