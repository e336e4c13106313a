// The extension module _attnreg: the library for the Python package `attnreg`, which checks and names arguments.
#include <exception>
#include <new>
#include <string>

#include "attnreg/error.hpp"
#include "call.hpp"

namespace attnreg::python {

namespace {

/// Errors of the library are those of attnreg/_errors.py, by their exit code.
void translate(std::exception_ptr thrown) {
  const auto raise = [](ExitCode code, const std::string& text) {
    const auto errors = py::module_::import("attnreg._errors");
    const py::object error = errors.attr("error_of")(static_cast<int>(code), text);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  };
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const Error& error) {
    raise(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    raise(ExitCode::memory, "out of memory");
  }
}

}  // namespace

}  // namespace attnreg::python

PYBIND11_MODULE(_attnreg, module) {
  namespace py = pybind11;
  py::register_local_exception_translator(attnreg::python::translate);
  module.attr("__version__") = ATTNREG_VERSION;
  attnreg::python::define_call(module);
  attnreg::python::define_regression(module);
  attnreg::python::define_attention(module);
  attnreg::python::define_matrices(module);
}
