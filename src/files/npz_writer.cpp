#include "files/npz_writer.hpp"

#include <algorithm>
#include <span>

#include "files/crc32.hpp"
#include "files/npy_header.hpp"

namespace attnreg {
namespace {

constexpr std::uint32_t elsewhere = 0xffffffff;  // the number is in the zip64 field
constexpr std::uint64_t zip64_version = 45;
constexpr std::uint64_t first_of_january_1980 = 0x21;

void append(std::string& bytes, std::uint64_t value, int width) {
  for (int k = 0; k < width; ++k) bytes += static_cast<char>((value >> (8 * k)) & 0xff);
}

/// Version, flags, method, time, date, checksum, and sizes that are in the zip64 field.
void append_facts(std::string& bytes, std::uint32_t checksum) {
  append(bytes, zip64_version, 2);
  append(bytes, 0, 2);
  append(bytes, 0, 2);
  append(bytes, 0, 2);
  append(bytes, first_of_january_1980, 2);
  append(bytes, checksum, 4);
  append(bytes, elsewhere, 4);
  append(bytes, elsewhere, 4);
}

}  // namespace

std::int64_t NpzArray::data_bytes() const {
  std::int64_t bytes = item_bytes;
  for (const std::int64_t extent : shape) bytes *= extent;
  return bytes;
}

std::int64_t NpzWriter::Member::bytes() const {
  return static_cast<std::int64_t>(npy_header.size()) + array.data_bytes();
}

std::int64_t NpzWriter::Member::data_offset() const {
  return offset + static_cast<std::int64_t>(local_header(0).size() + npy_header.size());
}

std::string NpzWriter::Member::local_header(std::uint32_t checksum) const {
  const std::string name = array.name + ".npy";
  std::string header = "PK\x03\x04";
  append_facts(header, checksum);
  append(header, name.size(), 2);
  append(header, 20, 2);
  header += name;
  append(header, 1, 2);  // the zip64 field
  append(header, 16, 2);
  append(header, static_cast<std::uint64_t>(bytes()), 8);
  append(header, static_cast<std::uint64_t>(bytes()), 8);
  return header;
}

std::string NpzWriter::Member::directory_entry(std::uint32_t checksum) const {
  const std::string name = array.name + ".npy";
  std::string entry = "PK\x01\x02";
  append(entry, std::uint64_t{3} << 8 | zip64_version, 2);  // Unix
  append_facts(entry, checksum);
  append(entry, name.size(), 2);
  append(entry, 28, 2);
  append(entry, 0, 2);  // comment
  append(entry, 0, 2);  // disk
  append(entry, 0, 2);
  append(entry, std::uint64_t{0100644} << 16, 4);
  append(entry, elsewhere, 4);
  entry += name;
  append(entry, 1, 2);
  append(entry, 24, 2);
  append(entry, static_cast<std::uint64_t>(bytes()), 8);
  append(entry, static_cast<std::uint64_t>(bytes()), 8);
  append(entry, static_cast<std::uint64_t>(offset), 8);
  return entry;
}

std::vector<NpzWriter::Member> NpzWriter::members_of(std::vector<NpzArray> arrays) {
  std::vector<Member> members;
  std::int64_t offset = 0;
  for (auto& array : arrays) {
    std::string header = npy_header_bytes(array.dtype, array.shape);
    members.push_back({std::move(array), offset, std::move(header), {}});
    offset = members.back().data_offset() + members.back().array.data_bytes();
  }
  return members;
}

std::int64_t NpzWriter::directory_offset() const {
  return members_.empty() ? 0 : members_.back().data_offset() + members_.back().array.data_bytes();
}

std::int64_t NpzWriter::file_bytes() const {
  const std::vector<std::uint32_t> checksums(members_.size());
  return directory_offset() + static_cast<std::int64_t>(directory(checksums).size());
}

std::string NpzWriter::directory(const std::vector<std::uint32_t>& checksums) const {
  std::string bytes;
  for (std::size_t k = 0; k < members_.size(); ++k) bytes += members_[k].directory_entry(checksums[k]);
  const auto begin = static_cast<std::uint64_t>(directory_offset()), size = std::uint64_t{bytes.size()};
  const auto count = std::uint64_t{members_.size()};
  bytes += "PK\x06\x06";
  append(bytes, 44, 8);
  append(bytes, std::uint64_t{3} << 8 | zip64_version, 2);
  append(bytes, zip64_version, 2);
  append(bytes, 0, 4);
  append(bytes, 0, 4);
  append(bytes, count, 8);
  append(bytes, count, 8);
  append(bytes, size, 8);
  append(bytes, begin, 8);
  bytes += "PK\x06\x07";
  append(bytes, 0, 4);
  append(bytes, begin + size, 8);
  append(bytes, 1, 4);
  bytes += "PK\x05\x06";
  append(bytes, 0, 2);
  append(bytes, 0, 2);
  append(bytes, count, 2);
  append(bytes, count, 2);
  append(bytes, std::min<std::uint64_t>(size, elsewhere), 4);
  append(bytes, elsewhere, 4);
  append(bytes, 0, 2);
  return bytes;
}

NpzWriter::NpzWriter(const Communicator& communicator, const std::string& path, std::vector<NpzArray> arrays)
    : communicator_(communicator), members_(members_of(std::move(arrays))), file_(communicator, path, file_bytes()) {}

void NpzWriter::write(std::size_t array, std::int64_t offset, std::string_view bytes) noexcept {
  if (bytes.empty()) return;
  Member& member = members_[array];
  file_.write(member.data_offset() + offset, bytes);
  try {
    member.pieces.push_back({offset, static_cast<std::int64_t>(bytes.size()), crc32(bytes)});
  } catch (const std::exception& error) {
    file_.keep_error(error.what());
  }
}

std::uint32_t NpzWriter::checksum_of(Member& member) {
  std::ranges::sort(member.pieces, {}, &Piece::offset);
  bool contiguous = true;
  std::vector<double> part;  // all three numbers are exact in double
  if (!member.pieces.empty()) {
    Piece joined = member.pieces.front();
    for (std::size_t k = 1; k < member.pieces.size(); ++k) {
      const Piece& next = member.pieces[k];
      contiguous = contiguous && next.offset == joined.offset + joined.bytes;
      joined.checksum = crc32_joined(joined.checksum, next.checksum, next.bytes);
      joined.bytes += next.bytes;
    }
    part = {static_cast<double>(joined.offset), static_cast<double>(joined.bytes),
            static_cast<double>(joined.checksum)};
  }
  part = communicator_.all_gather(std::span<const double>(part));
  std::uint32_t checksum = crc32(member.npy_header);
  std::int64_t end = 0;
  for (std::size_t k = 0; k < part.size(); k += 3) {
    contiguous = contiguous && static_cast<std::int64_t>(part[k]) == end;
    checksum = crc32_joined(checksum, static_cast<std::uint32_t>(part[k + 2]), static_cast<std::int64_t>(part[k + 1]));
    end += static_cast<std::int64_t>(part[k + 1]);
  }
  if (!contiguous || end != member.array.data_bytes())
    file_.keep_error("cannot write " + file_.path() + ": the ranks' parts of " + member.array.name +
                     " do not follow each other");
  return checksum;
}

void NpzWriter::commit() {
  std::vector<std::uint32_t> checksums;
  for (Member& member : members_) checksums.push_back(checksum_of(member));
  if (communicator_.is_root()) {
    for (std::size_t k = 0; k < members_.size(); ++k)
      file_.write(members_[k].offset, members_[k].local_header(checksums[k]) + members_[k].npy_header);
    file_.write(directory_offset(), directory(checksums));
  }
  file_.commit();
}

}  // namespace attnreg
