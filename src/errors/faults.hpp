#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <string_view>

namespace attnreg::faults {

// Faults that tests play: with the CMake option ATTNREG_FAULT_INJECTION, and no trace of them without it. The variable
// ATTNREG_FAULT is a plan, "rank:site:kind" or "rank:site:kind:k", several divided by commas: when this rank comes to
// the site for the first, or the k-th, time, and never else, there is
//
//   throw, bad_alloc   an exception, a bug or a lack of memory
//   exhausted          a lack of memory from then on
//   short              a read or write of half of the bytes
//   ENOSPC, EIO        a system call that fails
//   flip0, ..., flip63 a bit of a number that flips, 63 being its sign
//   INT, TERM, HUP, USR1, USR2, KILL, STOP   a signal to this process
//
// A line on stderr says so.

/// What a system call is to look like.
struct Played {
  int error = 0;  ///< errno, if it fails
  bool is_short = false;
  int bit = -1;  ///< that flips; < 0: none
};

#ifdef ATTNREG_FAULT_INJECTION

/// Local. The plan of this process, which is rank `rank`, holds from now on. Throws `Error` (all ranks), code 2, for
/// one that does not have this form.
void start(int rank);

/// Local. This process is at a site: start, after-load, in-iteration, before-write; read, write, sync, rename, of
/// files; message, a collective; allocate, of memory, where only bad_alloc, exhausted and signals are played; logits,
/// sums, check: numbers of an evaluation, where only flips are.
Played at(std::string_view site);

/// Local. The same where these numbers were made: a bit of the middle one may flip.
void flip(std::string_view site, std::span<double> numbers);

#else

inline void start(int) {}
constexpr Played at(std::string_view) { return {}; }
constexpr void flip(std::string_view, std::span<double>) {}

#endif

/// Local. The result of call(bytes), a system call that reads or writes up to so many bytes.
template <class Call>
ssize_t transfer(std::string_view site, std::size_t bytes, Call&& call) {
  const Played played = at(site);
  if (played.error == 0) return call(played.is_short ? (bytes + 1) / 2 : bytes);
  errno = played.error;
  return -1;
}

/// Local. The result of call(), a system call that returns 0 if it succeeds.
template <class Call>
int operate(std::string_view site, Call&& call) {
  const Played played = at(site);
  if (played.error == 0) return call();
  errno = played.error;
  return -1;
}

}  // namespace attnreg::faults
