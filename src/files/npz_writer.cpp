#include "files/npz_writer.hpp"

#include <zlib.h>

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <span>

#include "files/byte_order.hpp"
#include "files/npy_header.hpp"

namespace attnreg {
namespace {

constexpr std::uint32_t elsewhere = 0xffffffff;  // the number is in the zip64 field
constexpr std::uint64_t zip64_version = 45, unix_version = std::uint64_t{3} << 8 | zip64_version;
constexpr std::uint64_t first_of_january_1980 = 0x21;

/// Numbers of a record of the archive, of `width` bytes each, least significant byte first.
void append(std::string& bytes, int width, std::initializer_list<std::uint64_t> values) {
  for (const std::uint64_t value : values)
    for (int k = 0; k < width; ++k) bytes += static_cast<char>((value >> (8 * k)) & 0xff);
}

/// Version, flags, method, time, date; checksum, and sizes that are in the zip64 field.
void append_facts(std::string& bytes, std::uint32_t checksum) {
  append(bytes, 2, {zip64_version, 0, 0, 0, first_of_january_1980});
  append(bytes, 4, {checksum, elsewhere, elsewhere});
}

std::uint32_t zip_checksum(std::string_view bytes) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

/// Of a text and the `second_bytes` bytes after it, from the checksums of both.
std::uint32_t joined_checksum(std::uint32_t first, std::uint32_t second, std::int64_t second_bytes) {
  return static_cast<std::uint32_t>(crc32_combine(first, second, second_bytes));
}

}  // namespace

std::int64_t NpzWriter::Member::bytes() const {
  return static_cast<std::int64_t>(npy_header.size()) + array.data_bytes();
}

std::int64_t NpzWriter::Member::data_offset() const {
  return offset + static_cast<std::int64_t>(local_header(0).size() + npy_header.size());
}

std::string NpzWriter::Member::local_header(std::uint32_t checksum) const {
  const std::string name = array.name + ".npy";
  const auto size = static_cast<std::uint64_t>(bytes());
  std::string header = "PK\x03\x04";
  append_facts(header, checksum);
  append(header, 2, {name.size(), 20});
  header += name;
  append(header, 2, {1, 16});  // the zip64 field
  append(header, 8, {size, size});
  return header;
}

std::string NpzWriter::Member::directory_entry(std::uint32_t checksum) const {
  const std::string name = array.name + ".npy";
  const auto size = static_cast<std::uint64_t>(bytes());
  constexpr std::uint64_t mode = 0100644;
  std::string entry = "PK\x01\x02";
  append(entry, 2, {unix_version});
  append_facts(entry, checksum);
  append(entry, 2, {name.size(), 28, 0, 0, 0});  // the last three: comment, disk, kind of the contents
  append(entry, 4, {mode << 16, elsewhere});
  entry += name;
  append(entry, 2, {1, 24});
  append(entry, 8, {size, size, static_cast<std::uint64_t>(offset)});
  return entry;
}

std::vector<NpzWriter::Member> NpzWriter::members_of(std::vector<ArrayFormat> arrays) {
  std::vector<Member> members;
  std::int64_t offset = 0;
  for (auto& array : arrays) {
    std::string header = array.header();
    members.push_back({std::move(array), offset, std::move(header), {}});
    offset = members.back().data_offset() + members.back().array.data_bytes();
  }
  return members;
}

std::int64_t NpzWriter::directory_offset() const {
  return members_.empty() ? 0 : members_.back().data_offset() + members_.back().array.data_bytes();
}

std::string NpzWriter::directory(const std::vector<std::uint32_t>& checksums) const {
  std::string bytes;
  for (std::size_t k = 0; k < members_.size(); ++k) bytes += members_[k].directory_entry(checksums[k]);
  const auto begin = static_cast<std::uint64_t>(directory_offset()), size = std::uint64_t{bytes.size()};
  const auto count = std::uint64_t{members_.size()};
  bytes += "PK\x06\x06";
  append(bytes, 8, {44});
  append(bytes, 2, {unix_version, zip64_version});
  append(bytes, 4, {0, 0});
  append(bytes, 8, {count, count, size, begin});
  bytes += "PK\x06\x07";
  append(bytes, 4, {0});
  append(bytes, 8, {begin + size});
  append(bytes, 4, {1});
  bytes += "PK\x05\x06";
  append(bytes, 2, {0, 0, count, count});
  append(bytes, 4, {std::min<std::uint64_t>(size, elsewhere), elsewhere});
  append(bytes, 2, {0});
  return bytes;
}

NpzWriter::NpzWriter(const Communicator& communicator, const std::string& path, std::vector<ArrayFormat> arrays)
    : communicator_(communicator),
      members_(members_of(std::move(arrays))),
      file_(communicator, path,
            directory_offset() +
                static_cast<std::int64_t>(directory(std::vector<std::uint32_t>(members_.size())).size())) {}

void NpzWriter::write(std::size_t array, std::int64_t offset, std::string_view bytes) noexcept {
  if (bytes.empty()) return;
  Member& member = members_[array];
  file_.write(member.data_offset() + offset, bytes);
  try {
    member.pieces.push_back({offset, static_cast<std::int64_t>(bytes.size()), zip_checksum(bytes)});
  } catch (const std::exception&) {
    file_.keep(std::current_exception());
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
      joined.checksum = joined_checksum(joined.checksum, next.checksum, next.bytes);
      joined.bytes += next.bytes;
    }
    part = {static_cast<double>(joined.offset), static_cast<double>(joined.bytes),
            static_cast<double>(joined.checksum)};
  }
  part = communicator_.all_gather(std::span<const double>(part));
  std::uint32_t checksum = zip_checksum(member.npy_header);
  std::int64_t end = 0;
  for (std::size_t k = 0; k < part.size(); k += 3) {
    contiguous = contiguous && static_cast<std::int64_t>(part[k]) == end;
    checksum =
        joined_checksum(checksum, static_cast<std::uint32_t>(part[k + 2]), static_cast<std::int64_t>(part[k + 1]));
    end += static_cast<std::int64_t>(part[k + 1]);
  }
  if (!contiguous || end != member.array.data_bytes())
    file_.keep(std::make_exception_ptr(OutputError("cannot write " + file_.path() + ": the ranks' parts of " +
                                                   member.array.name + " do not follow each other")));
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

std::vector<ArrayFormat> sparse_arrays(std::int64_t compressed_rows, std::int64_t entries, Storage type) {
  return {{"indices", "<i4", 4, {entries}},
          {"indptr", "<i8", 8, {compressed_rows + 1}},
          {"data", npy_dtype(type), item_bytes(type), {entries}},
          {"format", "|S3", 3, {}},
          {"shape", "<i8", 8, {2}}};
}

void commit_sparse(NpzWriter& archive, const Communicator& communicator, std::string_view format, std::int64_t rows,
                   std::int64_t columns) {
  if (communicator.is_root()) {
    archive.write(format_array, 0, format);
    archive.write(shape_array, 0, little_endian(std::vector<std::int64_t>{rows, columns}));
  }
  archive.commit();
}

void write_sparse(const Communicator& communicator, const std::string& path, std::string_view format,
                  std::int64_t first_row, std::int64_t rows_global, CsrRows rows) {
  const auto entries = RowPartition::from_local(communicator, rows.entries());
  const std::int64_t before = entries.begin(communicator.rank());
  for (std::int64_t& offset : rows.offsets) offset += before;
  if (communicator.rank() < communicator.size() - 1) rows.offsets.pop_back();  // where the next rank begins

  const Storage type = rows.is_single ? Storage::float32 : Storage::float64;
  NpzWriter archive(communicator, path, sparse_arrays(rows_global, entries.rows_global(), type));
  archive.write(indices_array, 4 * before, little_endian(std::move(rows.indices)));
  archive.write(indptr_array, 8 * first_row, little_endian(std::move(rows.offsets)));
  archive.write(data_array, item_bytes(type) * before,
                rows.is_single ? little_endian(std::move(rows.singles)) : little_endian(std::move(rows.values)));
  const bool by_columns = format == "csc";
  commit_sparse(archive, communicator, format, by_columns ? rows.columns : rows_global,
                by_columns ? rows_global : rows.columns);
}

}  // namespace attnreg
