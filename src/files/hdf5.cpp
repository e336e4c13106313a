#include "files/hdf5.hpp"

#include <string_view>

#include "errors/printable.hpp"

#ifdef ATTNREG_HDF5
#define H5_USE_110_API
#include <hdf5.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "files/npz_archive.hpp"
#include "ranks/activity.hpp"
#include "ranks/stop.hpp"
#endif

namespace attnreg {

bool is_hdf5(const InputFile& file, const std::string& name) {
  constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";
  if (name.ends_with(".h5") || name.ends_with(".hdf5")) return true;
  if (file.bytes() < static_cast<std::int64_t>(signature.size())) return false;
  std::string start(signature.size(), '\0');
  file.read(0, start.data(), static_cast<std::int64_t>(start.size()));
  return start == signature;
}

#ifndef ATTNREG_HDF5

void read_hdf5(Source& source) {
  refuse_file(source.path,
              "an HDF5 file, and this attnreg was built without the library (CMake option ATTNREG_HDF5); expected "
              "another format: numpy.save('A.npy', h5py.File('A.h5')['A'][...])");
}

std::unique_ptr<ArrayBytes> open_hdf5(const Source& source) {
  throw InternalError(printable(source.path) + ": a dataset without the library");
}

#else

namespace {

/// While one lives the library loads no plugins and prints no errors; then it does as before, for whoever else uses it.
class QuietWithoutPlugins {
 public:
  QuietWithoutPlugins() {
    H5open();
    H5PLget_loading_state(&plugins_);
    H5PLset_loading_state(0);
    H5Eget_auto2(H5E_DEFAULT, &print_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietWithoutPlugins() {
    H5Eset_auto2(H5E_DEFAULT, print_, data_);
    H5PLset_loading_state(plugins_);
  }
  QuietWithoutPlugins(const QuietWithoutPlugins&) = delete;
  QuietWithoutPlugins& operator=(const QuietWithoutPlugins&) = delete;

 private:
  unsigned plugins_ = 0;
  H5E_auto2_t print_ = nullptr;
  void* data_ = nullptr;
};

/// An object of the library.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t get() const { return id_; }
  bool is_open() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

/// What the library says of its last failure: the innermost reason.
std::string library_reason() {
  std::string reason;
  const auto take = [](unsigned, const H5E_error2_t* error, void* to) -> herr_t {
    if (error->desc != nullptr) *static_cast<std::string*>(to) = error->desc;
    return 1;  // no more
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take, &reason);
  return reason.empty() ? "the library gives no reason" : printable(reason, 120);
}

/// Refuses to follow an external link, and remembers that there was one.
herr_t refuse_external(const char*, const char*, const char*, const char*, unsigned*, hid_t, void* met) {
  *static_cast<bool*>(met) = true;
  return -1;
}

Handle open_library_file(const Source& source) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fapl_sec2(access.get());
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 14, 0) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
  H5Pset_file_locking(access.get(), false, true);  // nothing is written, and some file systems have no locks
#endif
  Handle file(H5Fopen(source.file.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file.is_open())
    refuse_file(source.path, "the HDF5 library does not open it: " + library_reason() +
                                 "; expected a whole file, that nothing writes to");
  return file;
}

/// `cache_bytes`: for chunks; 0: as the library has it.
Handle open_dataset(const Source& source, const Handle& file, std::size_t cache_bytes = 0) {
  bool is_external = false;
  const Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  H5Pset_elink_cb(access.get(), refuse_external, &is_external);
  if (cache_bytes > 0) H5Pset_chunk_cache(access.get(), 10'007, cache_bytes, 1.0);
  Handle dataset(H5Dopen2(file.get(), source.member.c_str(), access.get()), H5Dclose);
  if (is_external)
    refuse_file(source.path, "'" + printable(source.member, 80) +
                                 "' is behind an external link, expected a dataset of this file; name the other file");
  return dataset;
}

/// The paths of the datasets of a file, without those behind soft and external links.
std::vector<std::string> datasets_in(const Handle& file) {
  std::vector<std::string> names;
  const auto take = [](hid_t, const char* name, const H5O_info_t* object, void* to) -> herr_t {
    if (object->type == H5O_TYPE_DATASET)
      static_cast<std::vector<std::string>*>(to)->push_back(std::string("/") + name);
    return 0;
  };
  H5Ovisit(file.get(), H5_INDEX_NAME, H5_ITER_NATIVE, take, &names);
  return names;
}

/// Throws: a name for no dataset, or none where there are several.
[[noreturn]] void refuse_name(const Source& source, const std::vector<std::string>& names) {
  constexpr std::size_t most = 20;
  std::vector<std::string> alike, others;  // those that have the name as a part come first
  for (const auto& name : names) {
    const bool is_alike = name.find(source.member) != std::string::npos;
    if (is_alike && alike.size() < most) alike.push_back(name);
    if (!is_alike && others.size() < most) others.push_back(name);
  }
  alike.insert(alike.end(), others.begin(), others.end());
  alike.resize(std::min(alike.size(), most));
  const std::string list = names_text(alike, std::ssize(names));
  if (source.member.empty())
    refuse_file(source.path, "a file of " + std::to_string(names.size()) + " datasets, expected the name of one, " +
                                 printable(source.path) + ":NAME; " + list);
  refuse_file(source.path, "the file has no dataset '" + printable(source.member, 80) + "', " + list);
}

/// Throws: elements that are no numbers.
[[noreturn]] void refuse_class(const Source& source, const std::string& found, const std::string& advice) {
  refuse_file(source.path, "the dataset '" + printable(source.member, 80) + "' has " + found +
                               ", expected floating-point numbers of 2, 4 or 8 bytes, integers or bool; " + advice);
}

/// Whether the bits of a number are those of one of IEEE's types, or of bfloat16, which `kind` then tells.
bool is_known_float(hid_t type, char& kind) {
  struct Layout {
    std::size_t bytes, exponent_bits, mantissa_bits;
    char kind;
  };
  constexpr std::array layouts{Layout{2, 5, 10, 'f'}, Layout{4, 8, 23, 'f'}, Layout{8, 11, 52, 'f'},
                               Layout{2, 8, 7, 'V'}};
  std::size_t sign = 0, exponent = 0, exponent_bits = 0, mantissa = 0, mantissa_bits = 0;
  if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) < 0) return false;
  for (const auto& layout : layouts) {
    if (H5Tget_size(type) != layout.bytes || exponent_bits != layout.exponent_bits ||
        mantissa_bits != layout.mantissa_bits)
      continue;
    kind = layout.kind;
    return sign == 8 * layout.bytes - 1 && exponent == mantissa_bits && mantissa == 0 &&
           H5Tget_ebias(type) == (std::size_t{1} << (exponent_bits - 1)) - 1 && H5Tget_norm(type) == H5T_NORM_IMPLIED;
  }
  return false;
}

/// Two names, FALSE for 0 and TRUE for 1, as h5py writes bool.
bool is_bool(hid_t type) {
  if (H5Tget_size(type) != 1 || H5Tget_nmembers(type) != 2) return false;
  for (const auto& [name, wanted] : {std::pair("FALSE", 0), std::pair("TRUE", 1)}) {
    signed char value = -1;
    if (H5Tenum_valueof(type, name, &value) < 0 || value != wanted) return false;
  }
  return true;
}

ElementType element_of(const Source& source, hid_t type) {
  ElementType element;
  element.bytes = static_cast<std::int64_t>(H5Tget_size(type));
  element.big_endian = H5Tget_order(type) == H5T_ORDER_BE;
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      if (!is_known_float(type, element.kind))
        refuse_class(source,
                     "numbers of " + std::to_string(element.bytes) + " bytes" + " in a layout that is not IEEE's",
                     "write it with astype('<f8')");
      return element;
    case H5T_ENUM: {
      if (is_bool(type)) {
        element.kind = 'b';
        return element;
      }
      const Handle base(H5Tget_super(type), H5Tclose);
      return element_of(source, base.get());
    }
    case H5T_BITFIELD: element.kind = 'u'; break;
    case H5T_INTEGER: element.kind = H5Tget_sign(type) == H5T_SGN_NONE ? 'u' : 'i'; break;
    case H5T_COMPOUND:
      refuse_class(source, "several fields (a complex number, or a table)",
                   "write each of them as a dataset of its own, f['A'][...]['r']");
    case H5T_STRING: refuse_class(source, "texts", "write it with astype('<f8')");
    case H5T_VLEN: refuse_class(source, "lists of any length", "write them as one array");
    default: refuse_class(source, "objects, references or times", "write it with astype('<f8')");
  }
  if (!element.is_number() || H5Tget_precision(type) != 8 * H5Tget_size(type) || H5Tget_offset(type) != 0)
    refuse_class(source, "integers of " + std::to_string(H5Tget_precision(type)) + " bits",
                 "write it with astype('<i8')");
  return element;
}

/// Throws: where a dataset is not in the chunks of this file, or not in a way that the library reads without plugins.
void require_own_chunks(const Source& source, hid_t properties) {
  const std::string of_dataset = "the dataset '" + printable(source.member, 80) + "' ";
  if (H5Pget_layout(properties) == H5D_VIRTUAL)
    refuse_file(source.path, of_dataset +
                                 "is virtual, made of other files, expected one with its own numbers; name "
                                 "those files, or copy it with h5py: g['A'] = f['A'][...]");
  if (H5Pget_external_count(properties) > 0)
    refuse_file(source.path, of_dataset +
                                 "has its numbers in other files, expected its own; copy it with h5py: "
                                 "g['A'] = f['A'][...]");
  const int filters = H5Pget_nfilters(properties);
  for (int k = 0; k < filters; ++k) {
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    char name[80] = {};
    const H5Z_filter_t filter =
        H5Pget_filter2(properties, static_cast<unsigned>(k), &flags, &values, nullptr, sizeof name, name, &config);
    constexpr std::array built_in{H5Z_FILTER_DEFLATE, H5Z_FILTER_SHUFFLE, H5Z_FILTER_FLETCHER32,
                                  H5Z_FILTER_SZIP,    H5Z_FILTER_NBIT,    H5Z_FILTER_SCALEOFFSET};
    if (std::ranges::find(built_in, filter) == built_in.end() || H5Zfilter_avail(filter) <= 0)
      refuse_file(source.path, of_dataset + "is compressed by filter " + std::to_string(filter) + " (" +
                                   printable(name, 40) +
                                   "), which is not built into the library here; expected gzip: "
                                   "h5repack -f GZIP=4 OLD NEW");
  }
}

std::vector<std::int64_t> shape_of(const Source& source, hid_t space) {
  if (H5Sget_simple_extent_type(space) == H5S_NULL)
    refuse_file(source.path, "the dataset '" + printable(source.member, 80) + "' is empty, expected numbers");
  std::array<hsize_t, H5S_MAX_RANK> extents{};
  const int axes = H5Sget_simple_extent_dims(space, extents.data(), nullptr);
  return {extents.begin(), extents.begin() + std::max(axes, 0)};
}

/// Numbers of a dataset that stays open.
class DatasetBytes : public ArrayBytes {
 public:
  explicit DatasetBytes(const Source& source)
      : path_(source.path), bytes_(source.disk_bytes), modified_ns_(source.modified_ns), regular_(source.file) {
    const QuietWithoutPlugins quiet;
    file_ = open_library_file(source);
    dataset_ = open_dataset(source, file_);
    if (dataset_.is_open()) dataset_ = open_dataset(source, file_, cache_bytes());
    if (!dataset_.is_open()) refuse_file(path_, "the file changed while it was being read; start again");
    type_ = Handle(H5Dget_type(dataset_.get()), H5Tclose);
    space_ = Handle(H5Dget_space(dataset_.get()), H5Sclose);
    shape_ = shape_of(source, space_.get());
  }
  ~DatasetBytes() override {
    const QuietWithoutPlugins quiet;
    space_ = {};
    type_ = {};
    dataset_ = {};
    file_ = {};
  }
  DatasetBytes(const DatasetBytes&) = delete;
  DatasetBytes& operator=(const DatasetBytes&) = delete;

  void check_unchanged() const override { regular_.check_unchanged(bytes_, modified_ns_); }

  void read(std::int64_t position, void* out, std::int64_t size) override {
    constexpr std::int64_t most_bytes = std::int64_t{1} << 25;  // between two looks at a signal
    const QuietWithoutPlugins quiet;
    const auto item = static_cast<std::int64_t>(H5Tget_size(type_.get()));
    auto* to = static_cast<char*>(out);
    for (std::int64_t at = position / item, left = size / item; left > 0;) {
      throw_if_stopped();
      const std::int64_t count = read_box(at, std::min(left, std::max<std::int64_t>(1, most_bytes / item)), to);
      InWork::add(count * item);
      at += count;
      left -= count;
      to += count * item;
    }
  }

 private:
  /// A row of chunks, so that rows that are read one after another decompress each chunk once.
  std::size_t cache_bytes() const {
    constexpr double least = 1 << 20, most = 1 << 28;
    const Handle properties(H5Dget_create_plist(dataset_.get()), H5Pclose);
    if (H5Pget_layout(properties.get()) != H5D_CHUNKED) return 0;
    const Handle type(H5Dget_type(dataset_.get()), H5Tclose), space(H5Dget_space(dataset_.get()), H5Sclose);
    std::array<hsize_t, H5S_MAX_RANK> chunk{}, extents{};
    const int axes = H5Pget_chunk(properties.get(), H5S_MAX_RANK, chunk.data());
    if (axes < 1 || H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr) != axes) return 0;
    double bytes = static_cast<double>(H5Tget_size(type.get()));
    for (int k = 0; k < axes; ++k) {
      const auto place = static_cast<std::size_t>(k);
      bytes *= static_cast<double>(k > 0 && k + 1 == axes ? std::max(chunk[place], extents[place]) : chunk[place]);
    }
    return static_cast<std::size_t>(std::clamp(bytes, least, most));
  }

  /// Reads the first of `most` elements from `at` on that lie in one box of the array; how many.
  std::int64_t read_box(std::int64_t at, std::int64_t most, char* to) {
    const std::size_t axes = shape_.size();
    std::vector<hsize_t> start(axes, 0), count(axes, 1);
    std::int64_t rest = at, elements = 1;
    for (std::size_t k = axes; k-- > 0;) {
      start[k] = static_cast<hsize_t>(rest % shape_[k]);
      rest /= shape_[k];
    }
    for (std::size_t k = axes; k-- > 0;) {  // whole axes from the last on, and a part of the one before
      const std::int64_t here = std::min(shape_[k] - static_cast<std::int64_t>(start[k]), most / elements);
      count[k] = static_cast<hsize_t>(here);
      elements *= here;
      if (here < shape_[k] || elements > most / 2) break;
    }
    const auto size = static_cast<hsize_t>(elements);
    const Handle memory(axes == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &size, nullptr), H5Sclose);
    if ((axes > 0 &&
         H5Sselect_hyperslab(space_.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0) ||
        H5Dread(dataset_.get(), type_.get(), memory.get(), space_.get(), H5P_DEFAULT, to) < 0)
      refuse_file(path_, "cannot read element " + std::to_string(at) + " of the dataset: " + library_reason() +
                             "; the file is damaged, copy it again");
    return elements;
  }

  std::string path_;
  std::int64_t bytes_, modified_ns_;
  InputFile regular_;
  Handle file_, dataset_, type_, space_;
  std::vector<std::int64_t> shape_;
};

}  // namespace

void read_hdf5(Source& source) {
  const QuietWithoutPlugins quiet;
  const Handle file = open_library_file(source);
  if (source.member.empty()) {
    const auto names = datasets_in(file);
    if (names.size() != 1) refuse_name(source, names);
    source.member = names[0];
  }
  const Handle dataset = open_dataset(source, file);
  if (!dataset.is_open()) refuse_name(source, datasets_in(file));
  const Handle properties(H5Dget_create_plist(dataset.get()), H5Pclose);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose), space(H5Dget_space(dataset.get()), H5Sclose);
  source.element = element_of(source, type.get());
  source.dtype = source.element.text();
  source.shape = shape_of(source, space.get());
  source.file_bytes = source.disk_bytes;
  require_own_chunks(source, properties.get());
  require_honest_growth(source.path, source.disk_bytes, array_bytes(source));
}

std::unique_ptr<ArrayBytes> open_hdf5(const Source& source) { return std::make_unique<DatasetBytes>(source); }

#endif

}  // namespace attnreg
