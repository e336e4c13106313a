#pragma once

#include <cstdint>
#include <string>

#include "attnreg/communicator.hpp"
#include "files/source_layout.hpp"

namespace attnreg {

/// Collective. From now on the name "-" stands for the array that comes through the standard input, a .npy file: rank 0
/// reads the header, which then all ranks have. Throws `InvalidArgument` on all ranks.
void accept_piped_array(const Communicator& communicator);

/// Local. That header; throws `InvalidArgument` (this rank) if no array was accepted.
ArrayHeader piped_header(const std::string& path);

/// The bytes of that array, on rank 0 of the job: once, and in order. What lies between two reads is skipped. Throws
/// `InvalidArgument` (this rank) on another rank, on a step back, where the input ends early, and where it goes on
/// behind the last byte.
class PipedBytes : public ArrayBytes {
 public:
  explicit PipedBytes(const Source& source) : path_(source.path) {}
  void read(std::int64_t position, void* out, std::int64_t size) override;
  void check_unchanged() const override {}
  bool seeks() const override { return false; }

 private:
  std::string path_;
};

}  // namespace attnreg
