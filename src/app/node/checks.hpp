#pragma once

#include <string>
#include <vector>

#include "app/node/node_facts.hpp"
#include "attnreg/communicator.hpp"
#include "ranks/mpi_facts.hpp"

namespace attnreg::app {

/// One line of the doctor's page.
struct Check {
  enum class Status { good, note, problem };  ///< note: slower than need be, or worth knowing; problem: will fail
  std::string name;
  std::string found;
  std::string advice{};  ///< what to do; empty if all is well
  Status status = Status::good;

  /// The check with this status and advice, if the condition holds.
  Check note_if(bool condition, const std::string& what_to_do) const {
    return condition ? Check{name, found, what_to_do, Status::note} : *this;
  }
  Check problem_if(bool condition, const std::string& what_to_do) const {
    return condition ? Check{name, found, what_to_do, Status::problem} : *this;
  }
};
std::string status_name(Check::Status status);  ///< "problem"

template <class Json>
void to_json(Json& json, const Check& check) {
  json = {
      {"name", check.name}, {"status", status_name(check.status)}, {"found", check.found}, {"advice", check.advice}};
}

/// Local. What follows from the facts of all ranks and the self-test, in the order of the page.
std::vector<Check> checks(const MpiFacts& mpi, const std::vector<NodeFacts>& ranks, const SelfTest& test);

}  // namespace attnreg::app
