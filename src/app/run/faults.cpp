#include "app/run/faults.hpp"

#include <array>
#include <charconv>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "app/options/options.hpp"
#include "errors/printable.hpp"

namespace attnreg::app {

void inject_fault(int rank, std::string_view site) {
  const char* variable = std::getenv("ATTNREG_FAULT");
  if (variable == nullptr || *variable == 0) return;

  const std::string_view plan(variable);
  constexpr std::array<std::string_view, 4> sites{"start", "after-load", "in-iteration", "before-write"};
  for (const auto known : sites) {
    int faulty_rank = -1;
    const auto [rest, error] = std::from_chars(plan.data(), plan.data() + plan.size(), faulty_rank);
    const std::string_view tail(rest, static_cast<std::size_t>(plan.data() + plan.size() - rest));
    if (error != std::errc() || tail != ":" + std::string(known) + ":throw") continue;
    if (faulty_rank == rank && known == site)
      throw std::logic_error("fault injected at '" + std::string(site) + "' by ATTNREG_FAULT");
    return;
  }
  throw UsageError("ATTNREG_FAULT is '" + printable(plan) +
                   "'; expected rank:site:throw with a site of start, after-load, in-iteration, before-write");
}

}  // namespace attnreg::app
