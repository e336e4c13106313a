#include "errors/lone_failure.hpp"

#include <new>

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

}  // namespace attnreg
