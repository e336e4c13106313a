#include "files/npz_archive.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <bit>
#include <cstdio>

#include "errors/printable.hpp"
#include "files/byte_order.hpp"
#include "ranks/stop.hpp"

namespace attnreg {
namespace {

constexpr std::int64_t buffer_bytes = std::int64_t{1} << 20;

std::string error_text(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

[[noreturn]] void refuse_to_open(const std::string& path, int code) {
  const bool damaged = code == ZIP_ER_NOZIP || code == ZIP_ER_INCONS || code == ZIP_ER_EOF;
  refuse_file(path, (damaged ? "not a .npz archive, or truncated (" : "cannot open (") + error_text(code) +
                        "); save or copy the file again");
}

zip_t* open_zip(const std::string& path, const InputFile& file) {
  const int descriptor = ::fcntl(file.descriptor(), F_DUPFD_CLOEXEC, 0);
  int code = ZIP_ER_OPEN;
  zip_t* const archive = zip_fdopen(descriptor, 0, &code);  // takes the descriptor, unless it fails
  if (archive == nullptr) {
    ::close(descriptor);
    refuse_to_open(path, code);
  }
  return archive;
}

}  // namespace

bool is_npz(const InputFile& file, const std::string& name) {
  if (name.ends_with(".npz")) return true;
  if (file.bytes() < 4) return false;
  char start[4];
  file.read(0, start, 4);
  const std::string_view magic(start, 4);
  return magic == "PK\x03\x04" || magic == "PK\x05\x06";  // the second one begins an archive of no files
}

void NpzArchive::Discard::operator()(zip* archive) const { zip_discard(archive); }
void NpzMember::Close::operator()(zip_file* file) const { zip_fclose(file); }

NpzArchive::NpzArchive(const std::string& path)
    : path_(path),
      file_(path, "a .npz file"),
      bytes_(file_.bytes()),
      modified_ns_(file_.modified_ns()),
      zip_(open_zip(path, file_)) {}

std::int64_t NpzArchive::count() const { return zip_get_num_entries(zip_.get(), 0); }

std::vector<std::string> NpzArchive::names(std::int64_t most) const {
  std::vector<std::string> names;
  const std::int64_t listed = std::min(most, count());
  for (std::int64_t k = 0; k < listed; ++k) {
    const char* const name = zip_get_name(zip_.get(), static_cast<zip_uint64_t>(k), ZIP_FL_ENC_RAW);
    if (name == nullptr) continue;
    std::string text(name);
    if (text.ends_with(".npy")) text.resize(text.size() - 4);
    names.push_back(std::move(text));
  }
  return names;
}

std::string names_text(const std::vector<std::string>& names, std::int64_t count) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + printable(name, 80);
  const auto others = count - std::ssize(names);
  return "found " + (text.empty() ? "none" : text) + (others > 0 ? " and " + std::to_string(others) + " more" : "");
}

bool NpzArchive::has(std::string_view name) const {
  return zip_name_locate(zip_.get(), (std::string(name) + ".npy").c_str(), 0) >= 0;
}

NpzMember::NpzMember(const NpzArchive& archive, const std::string& name) : archive_(&archive) {
  const std::string file = name + ".npy";
  header_.path = archive.path() + "/" + file;
  const std::int64_t index = zip_name_locate(archive.zip_.get(), file.c_str(), 0);
  if (index < 0)
    refuse_file(archive.path(), "the archive has no array '" + printable(name, 80) + "', " +
                                    names_text(archive.names(), archive.count()));
  index_ = static_cast<std::uint64_t>(index);
  const auto same = [&](zip_uint64_t k) {
    const char* const other = zip_get_name(archive.zip_.get(), k, ZIP_FL_ENC_RAW);
    return other != nullptr && file == other;
  };
  const auto count = static_cast<zip_uint64_t>(zip_get_num_entries(archive.zip_.get(), 0));
  for (zip_uint64_t k = 0; k < count; ++k)
    if (k != index_ && same(k)) refuse("the archive has two arrays of this name; save the file again");
  zip_stat_t facts;
  if (zip_stat_index(archive.zip_.get(), index_, 0, &facts) != 0 || (facts.valid & ZIP_STAT_SIZE) == 0 ||
      (facts.valid & ZIP_STAT_COMP_METHOD) == 0 || facts.size > std::uint64_t{1} << 62)
    refuse("the archive does not tell its size and compression; save the file again");
  if (facts.comp_method != ZIP_CM_STORE && facts.comp_method != ZIP_CM_DEFLATE)
    refuse("compressed by method " + std::to_string(facts.comp_method) +
           ", expected stored or deflated, as NumPy and SciPy write");
  is_stored_ = facts.comp_method == ZIP_CM_STORE;
  const auto size = static_cast<std::int64_t>(facts.size);
  open();
  std::string bytes(static_cast<std::size_t>(std::min(size, npy_prefix_limit + npy_header_limit)), '\0');
  read_bytes(bytes.data(), static_cast<std::int64_t>(bytes.size()));
  header_ = parse_npy_array(bytes, size, header_.path);
}

void NpzMember::open() {
  file_.reset(zip_fopen_index(archive_->zip_.get(), index_, 0));
  position_ = 0;
  if (!file_)
    refuse("cannot be read: " + std::string(zip_strerror(archive_->zip_.get())) + "; save or copy the file again");
}

void NpzMember::seek(std::int64_t position) {
  if (position == position_) return;
  if (is_stored_ && zip_fseek(file_.get(), position, SEEK_SET) == 0) {
    position_ = position;
    return;
  }
  if (position < position_) open();
  std::string discarded(static_cast<std::size_t>(std::min(buffer_bytes, position - position_)), '\0');
  while (position_ < position)
    read_bytes(discarded.data(), std::min(static_cast<std::int64_t>(discarded.size()), position - position_));
}

void NpzMember::read_bytes(void* out, std::int64_t size) {
  char* next = static_cast<char*>(out);
  while (size > 0) {
    throw_if_stopped();
    const auto wanted = static_cast<zip_uint64_t>(std::min(size, 64 * buffer_bytes));
    const std::int64_t got = zip_fread(file_.get(), next, wanted);
    if (got <= 0)
      refuse("damaged or truncated at byte " + std::to_string(position_) + " of the array, " + std::to_string(size) +
             " bytes early" + (got < 0 ? " (" + std::string(zip_file_strerror(file_.get())) + ")" : "") +
             "; save or copy the file again");
    next += got;
    position_ += got;
    size -= got;
  }
}

void NpzMember::read_data(std::int64_t position, void* out, std::int64_t size) {
  if (size == 0) return;
  seek(header_.data_offset + position);
  read_bytes(out, size);
  char beyond = 0;
  if (position_ == header_.file_bytes && zip_fread(file_.get(), &beyond, 1) != 0)
    refuse("damaged: the checksum or the length is another (" + std::string(zip_file_strerror(file_.get())) +
           "); save or copy the file again");
}

void NpzMember::check_range(std::int64_t first, std::size_t count) const {
  if (first < 0 || static_cast<std::int64_t>(count) > header_.elements() - first)
    refuse("elements from " + std::to_string(first) + " on asked of shape " + header_.shape_text());
}

template <class Scalar>
void NpzMember::read(std::int64_t first, std::span<Scalar> out) {
  check_range(first, out.size());
  std::int64_t position = first * header_.element.bytes;
  read_elements(header_.element, out, [&](void* to, std::int64_t size) {
    read_data(position, to, size);
    position += size;
  });
}
template void NpzMember::read(std::int64_t, std::span<double>);
template void NpzMember::read(std::int64_t, std::span<float>);

void NpzMember::read(std::int64_t first, std::span<std::int64_t> out) {
  check_range(first, out.size());
  const bool swapped = header_.element.big_endian != (std::endian::native == std::endian::big);
  const auto read_as = [&]<class Stored>(std::span<Stored> part) {
    read_data(first * header_.element.bytes, part.data(), static_cast<std::int64_t>(part.size_bytes()));
    if (swapped) swap_bytes(part);
  };
  if (header_.element.bytes == 8) return read_as(out);
  std::vector<std::int32_t> narrow(out.size());
  read_as(std::span(narrow));
  std::ranges::copy(narrow, out.begin());
}

std::string NpzMember::read_text() {
  const bool wide = header_.element.kind == 'U';
  if ((!wide && header_.element.kind != 'S') || header_.elements() != 1 || header_.element.bytes > 256)
    refuse("found " + printable(header_.dtype, 40) + " of shape " + header_.shape_text() +
           ", expected one short string");
  std::string bytes(static_cast<std::size_t>(header_.element.bytes), '\0'), text;
  seek(header_.data_offset);
  read_bytes(bytes.data(), header_.element.bytes);
  const std::size_t step = wide ? 4 : 1, used = wide && header_.element.big_endian ? 3 : 0;
  for (std::size_t k = 0; k + step <= bytes.size(); k += step) {
    const char c = bytes[k + used];
    if (c == '\0') break;
    text += (static_cast<unsigned char>(c) < 128) ? c : '?';
  }
  return text;
}

}  // namespace attnreg
