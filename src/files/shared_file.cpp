#include "files/shared_file.hpp"

#include "attnreg/error.hpp"
#include "errors/printable.hpp"
#include "files/npy_header.hpp"

namespace attnreg {

SharedFile::SharedFile(const Communicator& communicator, std::string path, std::int64_t bytes)
    : communicator_(communicator), path_(std::move(path)), bytes_(bytes) {
  communicator_.agree([&] {
    if (!communicator_.is_root()) return;
    file_ = std::make_unique<OutputFile>(path_);
    file_->reserve(bytes_);
  });
  const std::string temporary = communicator_.broadcast(file_ ? file_->temporary() : std::string());
  communicator_.agree([&] {
    if (!communicator_.is_root()) file_ = std::make_unique<OutputFile>(path_, temporary);
  });
}

void SharedFile::write(std::int64_t offset, std::string_view bytes) noexcept {
  if (!error_.empty()) return;
  try {
    file_->write(offset, bytes);
    bytes_written_ += static_cast<std::int64_t>(bytes.size());
  } catch (const std::exception& error) {
    keep_error(error.what());
  }
}

void SharedFile::keep_error(const std::string& message) noexcept {
  if (error_.empty()) error_ = message;
}

void SharedFile::commit() {
  communicator_.agree([&] {
    if (!error_.empty()) throw OutputError(error_);
    file_->sync();
  });
  const std::int64_t written = communicator_.sum(bytes_written_);
  communicator_.agree([&] {
    if (written != bytes_)
      throw OutputError("cannot write " + printable(path_) + ": " + std::to_string(written) +
                        " bytes were written, the file has " + std::to_string(bytes_));
    if (communicator_.is_root()) file_->publish();
  });
}

std::int64_t ArrayFormat::data_bytes() const {
  std::int64_t bytes = item_bytes;
  for (const std::int64_t extent : shape) bytes *= extent;
  return bytes;
}

SharedArray::SharedArray(const Communicator& communicator, std::string path, const ArrayFormat& format)
    : SharedArray(communicator, std::move(path), npy_header_bytes(format.dtype, format.shape, format.fortran_order),
                  format.data_bytes()) {}

SharedArray::SharedArray(const Communicator& communicator, std::string path, const std::string& header,
                         std::int64_t data_bytes)
    : SharedFile(communicator, std::move(path), static_cast<std::int64_t>(header.size()) + data_bytes),
      header_bytes_(static_cast<std::int64_t>(header.size())) {
  if (communicator.is_root()) SharedFile::write(0, header);
}

}  // namespace attnreg
