#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/error.hpp"
#include "attnreg/row_matrix.hpp"
#include "attnreg/solver.hpp"

namespace attnreg::python {

namespace py = pybind11;

/// MPI of this process: started when it is first needed, if nobody else has, and then ended when Python ends.
namespace mpi {
void start();
void finish();  ///< At exit; nothing if MPI is not ours, or a thread is still at work.
/// Because of the exception that is being handled: the other ranks would wait for ever.
[[noreturn]] void abort(int rank);
std::string library();  ///< "Open MPI v4.1.4, ..."
}  // namespace mpi

/// While one lives in Python's main thread, SIGINT asks the call to stop; a second one goes to Python, too. Nothing
/// happens in other threads, or where the program has a handler of its own.
class StopsOnInterrupt {
 public:
  explicit StopsOnInterrupt(const Communicator& communicator);
  ~StopsOnInterrupt();
  StopsOnInterrupt(const StopsOnInterrupt&) = delete;
  StopsOnInterrupt& operator=(const StopsOnInterrupt&) = delete;

  bool is_interrupted() const;

 private:
  bool is_installed_ = false;
};

/// A matrix of a call: rows in memory of Python's, or of a file. It ends with the call.
struct Matrix {
  std::optional<RowMatrix> rows;
  py::object owner;  ///< of the memory
};

/// One call of a function of the package: its communicator, its matrices, and how they end. What is collective in the
/// library is so here.
class Call {
 public:
  /// `address`: of an MPI_Comm, as mpi4py has it; 0: this process alone.
  explicit Call(std::uintptr_t address);
  ~Call() { close(); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const Communicator& communicator() const { return *communicator_; }
  /// Collective. Throws the error of the lowest rank that has one: `code` is not 0.
  void agree(int code, const std::string& message);
  std::shared_ptr<Matrix> add(RowMatrix rows, py::object owner);
  /// Collective. Lets go of matrices and communicator.
  void close();

  /// Runs `work` without Python's lock, which a callback takes meanwhile. Of several threads one works at a time: the
  /// serial flavour of OpenBLAS is not thread safe. An error that one of several ranks has alone is a bug, and ends the
  /// job.
  template <class Work>
  auto run(Work&& work) const {
    const py::gil_scoped_release released;
    const std::lock_guard turn(mutex());  // without Python's lock: else a callback would wait for us
    if (!communicator_ || communicator_->size() == 1) return work();
    try {
      return work();
    } catch (const Error& error) {
      if (error.scope() == Error::Scope::all_ranks) throw;
      mpi::abort(communicator_->rank());
    } catch (...) {
      mpi::abort(communicator_->rank());
    }
  }
  /// The same, of work that can end early with a result: on SIGINT it does. Then `interrupted` is set.
  template <class Work>
  auto run_until_interrupted(Work&& work) {
    const StopsOnInterrupt guard(communicator());
    auto result = run(work);
    interrupted_ = guard.is_interrupted();
    return result;
  }
  bool is_interrupted() const { return interrupted_; }

  /// Records for Python: keeps all, and shows each to `callback`, unless it is None. What this returns as true, or
  /// StopIteration, asks to stop; another exception does, too, and is thrown by `finish_callback`.
  std::function<void(const IterationRecord&)> recorder(const py::object& callback, const std::string& phase);
  /// Collective. Throws what a callback threw; on other ranks an error that says so.
  void finish_callback();
  py::list history() const;

 private:
  static std::recursive_mutex& mutex();  ///< of the process; a callback may call the package

  std::optional<Communicator> communicator_;
  std::vector<std::shared_ptr<Matrix>> matrices_;
  struct Record {
    std::string phase;
    IterationRecord record;
  };
  std::vector<Record> records_;
  std::exception_ptr failure_;
  bool interrupted_ = false;
};

// Eigen's matrices and NumPy's arrays.

/// An array that owns the numbers from now on: no copy.
py::array array_of(Eigen::VectorXd values);
py::array array_of(RowMajorMatrix values);
py::array array_of(Eigen::MatrixXd values);  ///< Fortran order
py::array array_of(std::vector<std::int64_t> values);

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;
Eigen::VectorXd vector_of(const DoubleArray& array);
RowMajorMatrix matrix_of(const DoubleArray& array);  ///< of two axes

RidgeWeights weights_of(const py::object& w);  ///< a float, or an array

void define_call(py::module_& module);
void define_regression(py::module_& module);
void define_attention(py::module_& module);
void define_matrices(py::module_& module);

}  // namespace attnreg::python
