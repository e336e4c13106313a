#include "errors/lone_failure.hpp"

#include <exception>
#include <new>

#include "errors/printable.hpp"

namespace attnreg {

ExitCode code_of_lone_failure() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return error.code() == ExitCode::memory ? ExitCode::memory : ExitCode::internal;
  } catch (const std::bad_alloc&) {
    return ExitCode::memory;
  } catch (...) {
    return ExitCode::internal;
  }
}

std::string text_of_lone_failure(int rank) {
  const std::string begin = "error on rank " + std::to_string(rank) + ": ", bug = "internal error, please report it: ";
  try {
    throw;
  } catch (const Error& error) {
    return begin + (error.code() == ExitCode::memory ? "" : bug) + printable(error.what());
  } catch (const std::bad_alloc&) {
    return begin + "out of memory";
  } catch (const std::exception& error) {
    return begin + bug + printable(error.what());
  } catch (...) {
    return begin + bug + "unknown exception";
  }
}

}  // namespace attnreg
