#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/shared_file.hpp"

namespace attnreg {

/// One array of an archive to be written.
struct NpzArray {
  std::string name;   ///< without ".npy"
  std::string dtype;  ///< "<f8"
  std::int64_t item_bytes;
  std::vector<std::int64_t> shape;

  std::int64_t data_bytes() const;
};

/// Collective. A .npz archive of stored arrays that all ranks write at once: the places of all bytes follow from the
/// shapes, each rank sums up its own, and the checksums are joined at the end. zip64 throughout, as NumPy writes it,
/// with the time 1980-01-01: same bytes for any number of ranks. Visible under its name only after `commit`.
class NpzWriter {
 public:
  NpzWriter(const Communicator& communicator, const std::string& path, std::vector<NpzArray> arrays);

  /// Local. Little-endian data of an array from a byte of the data on. Each rank writes one contiguous part of an
  /// array, in pieces of any order, and parts follow each other in rank order. An error is kept for `commit`.
  void write(std::size_t array, std::int64_t offset, std::string_view bytes) noexcept;

  /// Collective. Headers and directory, fsync, agreement, rename. Messages: three numbers per array and rank.
  void commit();

 private:
  struct Piece {
    std::int64_t offset, bytes;
    std::uint32_t checksum;
  };
  struct Member {
    NpzArray array;
    std::int64_t offset;  ///< of the local header in the file
    std::string npy_header;
    std::vector<Piece> pieces;

    std::string local_header(std::uint32_t checksum) const;
    std::string directory_entry(std::uint32_t checksum) const;
    std::int64_t bytes() const;  ///< of the .npy file
    std::int64_t data_offset() const;
  };

  static std::vector<Member> members_of(std::vector<NpzArray> arrays);
  std::int64_t directory_offset() const;
  std::int64_t file_bytes() const;
  std::string directory(const std::vector<std::uint32_t>& checksums) const;
  /// Collective. Replicated.
  std::uint32_t checksum_of(Member& member);

  Communicator communicator_;
  std::vector<Member> members_;
  SharedFile file_;
};

}  // namespace attnreg
