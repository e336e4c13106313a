#include "errors/refuse.hpp"

namespace attnreg {

void throw_error(ExitCode code, const std::string& message, Error::Scope scope) {
  switch (code) {
    case ExitCode::bad_input: throw InvalidArgument(message, scope);
    case ExitCode::breakdown: throw NotFinite(message, scope);
    case ExitCode::output: throw OutputError(message, scope);
    case ExitCode::memory: throw OutOfMemory(message, scope);
    case ExitCode::internal: throw InternalError(message, scope);
    default: throw Error(code, message, scope);
  }
}

void refuse(const std::string& message) { throw InvalidArgument(message, Error::Scope::all_ranks); }

}  // namespace attnreg
