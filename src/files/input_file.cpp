#include "files/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "attnreg/error.hpp"
#include "errors/printable.hpp"

namespace attnreg {
namespace {

constexpr std::int64_t bytes_per_call = std::int64_t{1} << 30;  // Linux reads at most 2^31 - 4096 bytes at once

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

}  // namespace

void refuse_file(const std::string& path, const std::string& problem) {
  throw InvalidArgument(printable(path) + ": " + problem);
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
    const auto wanted = static_cast<std::size_t>(std::min(size, bytes_per_call));
    const ssize_t got = retry_interrupted([&] { return ::pread(file_.get(), next, wanted, offset); });
    if (got < 0) fail_errno(path_, "cannot read at byte " + std::to_string(offset), errno);
    if (got == 0)
      refuse_file(path_, "the file ended at byte " + std::to_string(offset) + " while it was being read, " +
                             std::to_string(size) + " bytes early; start again when it is complete");
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

}  // namespace attnreg
