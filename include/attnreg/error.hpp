#pragma once

#include <stdexcept>
#include <string>

namespace attnreg {

/// The exit codes of the program; the library carries them in its exceptions and summaries.
enum class ExitCode : int {
  converged = 0,   ///< the tolerance was reached
  usage = 2,       ///< unknown option, value out of range
  bad_input = 3,   ///< a file or an argument does not describe a problem
  limit = 4,       ///< stopped at a limit, or stagnated, without reaching the tolerance; result written
  breakdown = 5,   ///< the numerics broke down; last good iterate written
  output = 6,      ///< a result could not be written
  memory = 7,      ///< does not fit in memory
  checkpoint = 8,  ///< a checkpoint cannot be used
  internal = 9,    ///< a bug of attnreg, or MPI failed
  stopped = 75,    ///< stopped on request after a checkpoint
};

/// Base of everything that attnreg throws.
///
/// `scope()` says who sees it: an error of `this_rank` must reach `Communicator::agree`, which throws the error
/// of the lowest failing rank on *all* ranks. An error that leaves the library always has scope `all_ranks`,
/// unless it is a bug; then the only safe answer is `MPI_Abort`.
class Error : public std::runtime_error {
 public:
  enum class Scope { this_rank, all_ranks };

  Error(ExitCode code, const std::string& message, Scope scope = Scope::this_rank)
      : std::runtime_error(message), code_(code), scope_(scope) {}

  ExitCode code() const noexcept { return code_; }
  Scope scope() const noexcept { return scope_; }

 private:
  ExitCode code_;
  Scope scope_;
};

/// The caller or the data is wrong. The message has the values and shapes, and what to do.
class InvalidArgument : public Error {
 public:
  explicit InvalidArgument(const std::string& message, Scope scope = Scope::this_rank)
      : Error(ExitCode::bad_input, message, scope) {}
};

/// A result could not be written; an earlier result is still there.
class OutputError : public Error {
 public:
  explicit OutputError(const std::string& message, Scope scope = Scope::this_rank)
      : Error(ExitCode::output, message, scope) {}
};

/// The problem does not fit; the message has the bytes needed and the bytes there.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message, Scope scope = Scope::this_rank)
      : Error(ExitCode::memory, message, scope) {}
};

/// A result that has no summary to say so is not finite; the message has the row.
class NotFinite : public Error {
 public:
  explicit NotFinite(const std::string& message, Scope scope = Scope::this_rank)
      : Error(ExitCode::breakdown, message, scope) {}
};

/// attnreg is wrong, or MPI failed.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message, Scope scope = Scope::this_rank)
      : Error(ExitCode::internal, message, scope) {}
};

}  // namespace attnreg
