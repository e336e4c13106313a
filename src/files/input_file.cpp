#include "files/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <type_traits>
#include <utility>

#include "attnreg/error.hpp"
#include "errors/faults.hpp"
#include "errors/printable.hpp"
#include "ranks/activity.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

namespace {

constexpr std::int64_t bytes_per_call = std::int64_t{1} << 26;  // between two looks whether to stop

[[noreturn]] void fail_errno(const std::string& path, const std::string& action, int error) {
  const char* const advice = error == ENOENT   ? "; check the name and the working directory"
                             : error == EACCES ? "; check the permissions of the file and its directories"
                                               : "";
  refuse_file(path, action + ": " + std::strerror(error) + advice);
}

struct stat status_of(const std::string& path, const FileDescriptor& file) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(path, "cannot examine the file", errno);
  return status;
}

/// Device and inode of the files that were remembered.
class Inputs {
 public:
  void add(const struct stat& status) {
    const std::lock_guard lock(mutex_);
    identities_.emplace(status.st_dev, status.st_ino);
  }
  bool contains(const struct stat& status) {
    const std::lock_guard lock(mutex_);
    return identities_.contains({status.st_dev, status.st_ino});
  }
  static Inputs& of_process() {
    static Inputs inputs;
    return inputs;
  }

 private:
  std::mutex mutex_;
  std::set<std::pair<dev_t, ino_t>> identities_;
};

template <class Bits, class Scalar>
NonFinite find_by_exponents(std::span<const Scalar> values) {
  const auto exponent = std::bit_cast<Bits>(std::numeric_limits<Scalar>::infinity());
  const auto is_non_finite = [exponent](Scalar value) { return (std::bit_cast<Bits>(value) & exponent) == exponent; };
  Bits count = 0;  // of the width of the values: the loop is then a vector loop
  NonFinite result;
  constexpr std::size_t block = std::size_t{1} << (sizeof(Bits) == 2 ? 15 : 20);  // values that it can count
  for (std::size_t start = 0; start < values.size(); start += block, count = 0) {
    const auto part = values.subspan(start, std::min(block, values.size() - start));
    for (const Scalar value : part) count += static_cast<Bits>(is_non_finite(value));
    if (count != 0 && result.count == 0)
      result.first = static_cast<std::int64_t>(start) + (std::ranges::find_if(part, is_non_finite) - part.begin());
    result.count += static_cast<std::int64_t>(count);
  }
  return result;
}

}  // namespace

void refuse_file(const std::string& path, const std::string& problem) {
  throw InvalidArgument(printable(path) + ": " + problem);
}

void remember_input(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) Inputs::of_process().add(status);
}

namespace {
bool inputs_are_trusted = false;
}

void trust_inputs() { inputs_are_trusted = true; }

void require_honest_growth(const std::string& path, std::int64_t file_bytes, std::int64_t grown_bytes) {
  constexpr std::int64_t kHarmless = 1'000'000'000, kMostGrowth = 100;
  if (inputs_are_trusted || grown_bytes <= kHarmless || grown_bytes / kMostGrowth <= file_bytes) return;
  refuse_file(path, "an archive of " + std::to_string(file_bytes) + " bytes that grows to " +
                        std::to_string(grown_bytes) +
                        ", more than 100 times as many; if it is yours, add --trust-input, or save it with "
                        "compressed=False");
}

bool is_input(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && Inputs::of_process().contains(status);
}

InputFile::InputFile(std::string path, const char* expected) : path_(std::move(path)) {
  file_ = FileDescriptor(retry_interrupted([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  if (!file_.is_open()) fail_errno(path_, "cannot open the file", errno);
  const struct stat status = status_of(path_, file_);
  if (S_ISDIR(status.st_mode)) refuse_file(path_, std::string("this is a directory, expected ") + expected);
  if (!S_ISREG(status.st_mode)) refuse_file(path_, "this is not a regular file; copy its contents to a file first");
}

std::int64_t InputFile::bytes() const { return status_of(path_, file_).st_size; }

std::int64_t InputFile::modified_ns() const {
  const struct stat status = status_of(path_, file_);
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

void InputFile::check_unchanged(std::int64_t bytes_before, std::int64_t modified_ns_before) const {
  const std::int64_t found = bytes();
  if (found == bytes_before && modified_ns() == modified_ns_before) return;
  const std::string change =
      found == bytes_before ? "its time of modification is another"
                            : "found " + std::to_string(found) + " bytes, " + std::to_string(bytes_before) + " before";
  refuse_file(path_, "the file changed while it was being read: " + change + "; start again when it is complete");
}

void InputFile::read(std::int64_t offset, void* out, std::int64_t size) const {
  char* next = static_cast<char*>(out);
  while (size > 0) {
    throw_if_stopped();
    const auto wanted = static_cast<std::size_t>(std::min(size, bytes_per_call));
    const ssize_t got = faults::transfer("read", wanted, [&](std::size_t length) {
      return retry_interrupted([&] { return ::pread(file_.get(), next, length, offset); });
    });
    if (got < 0) fail_errno(path_, "cannot read at byte " + std::to_string(offset), errno);
    if (got == 0)
      refuse_file(path_, "the file ended at byte " + std::to_string(offset) + " while it was being read, " +
                             std::to_string(size) + " bytes early; start again when it is complete");
    InWork::add(got);
    next += got;
    offset += got;
    size -= got;
  }
}

void require_same_file(const Communicator& communicator, const std::string& path, const std::string& what,
                       const std::string& found) {
  const std::string at_root = communicator.broadcast(found);
  communicator.agree([&] {
    if (found != at_root)
      refuse_file(path, "rank " + std::to_string(communicator.rank()) + " found " + what + found + ", rank 0 " +
                            at_root + "; all nodes must see the same file");
  });
}

NonFinite find_non_finite(std::span<const double> values) { return find_by_exponents<std::uint64_t>(values); }
NonFinite find_non_finite(std::span<const float> values) { return find_by_exponents<std::uint32_t>(values); }
NonFinite find_non_finite(std::span<const Eigen::half> values) { return find_by_exponents<std::uint16_t>(values); }
NonFinite find_non_finite(std::span<const Eigen::bfloat16> values) { return find_by_exponents<std::uint16_t>(values); }

void refuse_value(const std::string& path, double value, const std::string& place, std::int64_t count,
                  const char* finder, Storage held) {
  const std::string values = std::to_string(count) + (count == 1 ? " value" : " values"), type(option_name(held));
  if (std::isfinite(value))
    refuse_file(path, place + " is " + text_of(value) + ", which is too " + (std::abs(value) > 1 ? "large" : "small") +
                          " for " + type + "; " + values + " cannot be held as " + type +
                          " (rows and columns counted from 0); use --storage double");
  const std::string counted = values + (count == 1 ? " is" : " are") + " not finite";
  const char* const found = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  refuse_file(path, place + " is " + found + "; " + counted + " (rows and columns counted from 0); find them with " +
                        finder + " and drop or replace them");
}

}  // namespace attnreg
