#include "files/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "attnreg/error.hpp"
#include "errors/faults.hpp"
#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "files/npy_header.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

namespace {

constexpr std::size_t bytes_per_write = std::size_t{1} << 30;  // Linux writes at most 2^31 - 4096 bytes at once

const char* advice(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return "free space or choose another file system";
    case EFBIG: return "raise the limit on file sizes (ulimit -f) or choose another file system";
    case EACCES:
    case EPERM:
    case EROFS: return "choose a directory in which you may write";
    case ENOENT: return "create the directory first; with several nodes it must be shared by all of them";
    case ENOTDIR: return "a part of the path is a file; choose another path";
    case ENAMETOOLONG: return "choose a shorter name";
    default: return "check the file system or choose another path";
  }
}

[[noreturn]] void fail_to(const std::string& action, const std::string& path, int error) {
  throw OutputError("cannot " + action + " " + printable(path) + ": " + std::strerror(error) + "; " + advice(error));
}

void check_target(const std::string& path) {
  struct stat status {};
  if (path.empty() || path.back() == '/')
    throw OutputError("cannot write '" + printable(path) + "': expected the name of a file");
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) fail_to("write", path, errno);
    return;
  }
  if (is_input(path))
    throw OutputError("cannot write " + printable(path) +
                      ": it is an input, which the output would destroy; choose another name");
  if (S_ISREG(status.st_mode)) return;
  const char* const found = S_ISDIR(status.st_mode)   ? "a directory"
                            : S_ISLNK(status.st_mode) ? "a symbolic link"
                                                      : "not a regular file";
  throw OutputError("cannot write " + printable(path) + ": it exists and is " + found +
                    "; choose another name or remove it");
}

std::string directory_of(const std::string& path) {
  const std::string directory = std::filesystem::path(path).parent_path().string();
  return directory.empty() ? "." : directory;
}

void sync_directory_of(const std::string& path) {
  const std::string directory = directory_of(path);
  const FileDescriptor file(
      retry_interrupted([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  // A directory that may be written but not read, and file systems without this operation, give no promise to keep.
  if (!file.is_open()) return;
  const int result = retry_interrupted([&] { return ::fsync(file.get()); });
  if (result != 0 && errno != EINVAL && errno != ENOTSUP) fail_to("secure the directory of", path, errno);
}

}  // namespace

OutputFile::OutputFile(std::string path, Shared shared) : path_(std::move(path)) {
  check_target(path_);
  if (shared == Shared::no) {
    constexpr int flags = O_WRONLY | O_TMPFILE | O_CLOEXEC;
    const std::string directory = directory_of(path_);
    file_ = FileDescriptor(retry_interrupted([&] { return ::open(directory.c_str(), flags, 0666); }));
    if (file_.is_open()) return;
  }
  name_temporary([&](const char* name) {
    constexpr int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    file_ = FileDescriptor(retry_interrupted([&] { return ::open(name, flags, 0666); }));
    return file_.is_open();
  });
}

/// take(name): whether it is this file's name now; else with an error.
template <class Take>
void OutputFile::name_temporary(Take&& take) {
  constexpr int attempts = 100;  // names left behind by killed runs, or by another node with the same process number
  for (int k = 0; k < attempts; ++k) {
    temporary_ = path_ + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(k);
    remove_ = take(temporary_.c_str());
    if (remove_) return;
    if (errno != EEXIST) fail_to("create", temporary_, errno);
  }
  fail_to("create", temporary_, EEXIST);
}

OutputFile::OutputFile(std::string path, std::string temporary)
    : path_(std::move(path)), temporary_(std::move(temporary)) {
  file_ =
      FileDescriptor(retry_interrupted([&] { return ::open(temporary_.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC); }));
  if (!file_.is_open()) fail_to("open", temporary_, errno);
}

OutputFile::~OutputFile() {
  if (remove_) ::unlink(temporary_.c_str());
}

void OutputFile::reserve(std::int64_t bytes) {
  if (bytes == 0) return;
  if (retry_interrupted([&] { return ::fallocate(file_.get(), 0, 0, bytes); }) == 0) return;
  const bool unsupported = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
  if (!unsupported) fail_to("reserve " + std::to_string(bytes) + " bytes for", path_, errno);
  if (retry_interrupted([&] { return ::ftruncate(file_.get(), bytes); }) != 0)
    fail_to("set the size to " + std::to_string(bytes) + " bytes of", path_, errno);
}

void OutputFile::write(std::int64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t wanted = std::min(bytes.size(), bytes_per_write);
    const ssize_t done = faults::transfer("write", wanted, [&](std::size_t length) {
      return retry_interrupted([&] { return ::pwrite(file_.get(), bytes.data(), length, offset); });
    });
    if (done < 0) fail_to("write", path_, errno);
    if (done == 0) fail_to("write", path_, EIO);
    bytes.remove_prefix(static_cast<std::size_t>(done));
    offset += done;
  }
}

void OutputFile::cut(std::int64_t bytes) {
  if (retry_interrupted([&] { return ::ftruncate(file_.get(), bytes); }) != 0) fail_to("write", path_, errno);
}

void OutputFile::sync() {
  const auto secure = [&] { return retry_interrupted([&] { return ::fsync(file_.get()); }); };
  if (faults::operate("sync", secure) != 0) fail_to("write", path_, errno);
}

void OutputFile::publish() {
  sync();
  check_target(path_);
  if (temporary_.empty()) {
    const std::string open_file = "/proc/self/fd/" + std::to_string(file_.get());
    name_temporary([&](const char* name) {
      return ::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
    });
  }
  if (!file_.close()) fail_to("write", path_, errno);
  const auto replace = [&] { return ::rename(temporary_.c_str(), path_.c_str()); };
  if (faults::operate("rename", replace) != 0) fail_to("replace", path_, errno);
  remove_ = false;
  sync_directory_of(path_);
}

void check_output(const std::string& path, bool replaces) {
  const OutputFile check(path);
  if (!replaces && std::filesystem::exists(path))
    throw OutputError(printable(path) + " exists; choose another name, or add --force to replace it");
}

void write_file(const std::string& path, std::string_view bytes) {
  OutputFile file(path);
  write_file(file, bytes);
}

void write_file(OutputFile& file, std::string_view bytes) {
  file.write(0, bytes);
  file.cut(std::ssize(bytes));
  file.publish();
}

void create_directories(const std::string& path) {
  if (path.empty()) throw OutputError("cannot create the directory '': expected a name");
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail_to("create the directory", path, error.value());
  if (!std::filesystem::is_directory(path, error)) fail_to("create the directory", path, ENOTDIR);
}

SharedFile::SharedFile(const Communicator& communicator, std::string path, std::int64_t bytes)
    : communicator_(communicator), path_(std::move(path)), bytes_(bytes) {
  communicator_.agree_on_root([&] {
    file_ = std::make_unique<OutputFile>(path_, OutputFile::Shared::yes);
    file_->reserve(bytes_);
  });
  const std::string temporary = communicator_.broadcast(file_ ? file_->temporary() : std::string());
  communicator_.agree([&] {
    if (!communicator_.is_root()) file_ = std::make_unique<OutputFile>(path_, temporary);
  });
}

void SharedFile::write(std::int64_t offset, std::string_view bytes) noexcept {
  if (failure_) return;
  try {
    file_->write(offset, bytes);
    bytes_written_ += static_cast<std::int64_t>(bytes.size());
  } catch (const std::exception&) {
    keep(std::current_exception());
  }
}

void SharedFile::keep(std::exception_ptr failure) noexcept {
  if (!failure_) failure_ = std::move(failure);
}

void SharedFile::commit() {
  communicator_.agree([&] {
    if (failure_) std::rethrow_exception(failure_);
    file_->sync();
  });
  StopsEndPhases::end();
  const std::int64_t written = communicator_.sum(bytes_written_);
  communicator_.agree([&] {
    if (written != bytes_)
      throw OutputError("cannot write " + printable(path_) + ": " + std::to_string(written) +
                        " bytes were written, the file has " + std::to_string(bytes_));
    if (communicator_.is_root()) file_->publish();
  });
}

std::string ArrayFormat::header() const { return npy_header_bytes(dtype, shape, fortran_order); }

std::int64_t ArrayFormat::data_bytes() const {
  std::int64_t bytes = item_bytes;
  for (const std::int64_t extent : shape) bytes *= extent;
  return bytes;
}

SharedArray::SharedArray(const Communicator& communicator, std::string path, const ArrayFormat& format)
    : SharedFile(communicator, std::move(path), std::ssize(format.header()) + format.data_bytes()),
      header_bytes_(std::ssize(format.header())) {
  if (communicator.is_root()) SharedFile::write(0, format.header());
}

}  // namespace attnreg
