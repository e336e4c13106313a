#pragma once

#include <string>

#include "call.hpp"

namespace attnreg::python {

/// Options come from Python as a dict of those that were given; the others keep the library's defaults.
template <class Value>
void take(const py::dict& options, const char* name, Value& value) {
  if (options.contains(name)) value = options[name].cast<Value>();
}

/// The value with this number in the order of the enumeration.
template <class Value>
void take_choice(const py::dict& options, const char* name, Value& value) {
  if (options.contains(name)) value = static_cast<Value>(options[name].cast<int>());
}

inline py::dict newton_dict(const NewtonSummary& summary) {
  py::dict result;
  result["termination"] = std::string(termination_name(summary.termination));
  result["fun"] = summary.value;
  result["gradient_norm"] = summary.gradient_norm;
  result["relative_gradient"] = summary.relative_gradient;
  result["gradient_reference"] = summary.gradient_reference;
  result["nit"] = summary.iterations;
  result["reads"] = summary.reads_of_a;
  result["collectives"] = summary.collectives;
  result["seconds"] = summary.seconds;
  result["singular"] = summary.singular;
  return result;
}

inline void take_newton(const py::dict& options, NewtonOptions& newton) {
  take(options, "rtol", newton.relative_tolerance);
  take(options, "max_iterations", newton.max_iterations);
  take(options, "time_limit", newton.time_limit_seconds);
  take_choice(options, "rtol_of", newton.reference);
}

}  // namespace attnreg::python
