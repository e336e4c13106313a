// Reads and writes .npy files: versions 1 to 3, C order, little endian.
#pragma once
#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace peers::npy {

struct Header {
  std::string type;  // as NumPy spells it, "<f8"
  std::vector<std::size_t> shape;
  long data_offset = 0;  // bytes
};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

inline File open(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode));
  if (!file) throw std::runtime_error("cannot open " + path);
  return file;
}

inline bool exists(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0;
}

inline void read_bytes(std::FILE* file, void* bytes, std::size_t count, const std::string& path) {
  if (std::fread(bytes, 1, count, file) != count) throw std::runtime_error(path + ": truncated");
}

inline Header read_header(std::FILE* file, const std::string& path) {
  unsigned char prefix[12];
  read_bytes(file, prefix, 10, path);
  if (std::memcmp(prefix, "\x93NUMPY", 6) != 0) throw std::runtime_error(path + ": not an .npy file");
  std::size_t length = prefix[8] | (prefix[9] << 8);
  long offset = 10;
  if (prefix[6] >= 2) {
    read_bytes(file, prefix + 10, 2, path);
    length |= (std::size_t(prefix[10]) << 16) | (std::size_t(prefix[11]) << 24);
    offset = 12;
  }
  std::string text(length, ' ');
  read_bytes(file, text.data(), length, path);
  if (text.find("'fortran_order': True") != std::string::npos) throw std::runtime_error(path + ": Fortran order");

  Header header;
  header.data_offset = offset + long(length);
  const std::size_t type = text.find('\'', text.find(':', text.find("'descr'"))) + 1;
  header.type = text.substr(type, text.find('\'', type) - type);
  const std::size_t open = text.find('(', text.find("'shape'"));
  const char* place = text.c_str() + open + 1;
  const char* close = text.c_str() + text.find(')', open);
  while (place < close) {
    char* after = nullptr;
    const unsigned long long extent = std::strtoull(place, &after, 10);
    if (after == place) break;
    header.shape.push_back(std::size_t(extent));
    place = after;
    while (place < close && (*place == ',' || *place == ' ')) ++place;
  }
  return header;
}

inline Header read_header(const std::string& path) { return read_header(open(path, "rb").get(), path); }

// Reads `count` elements from element `first` on; `type` is what the file must hold.
template <class T>
void read(const std::string& path, const char* type, std::size_t first, std::size_t count, T* elements) {
  const File file = open(path, "rb");
  const Header header = read_header(file.get(), path);
  if (header.type != type) throw std::runtime_error(path + ": type " + header.type + ", expected " + type);
  std::fseek(file.get(), header.data_offset + long(first * sizeof(T)), SEEK_SET);
  read_bytes(file.get(), elements, count * sizeof(T), path);
}

inline std::vector<double> read_vector(const std::string& path, std::size_t size) {
  const Header header = read_header(path);
  if (header.shape.empty() || header.shape[0] != size)
    throw std::runtime_error(path + ": expected " + std::to_string(size) + " values");
  std::vector<double> values(size);
  read(path, "<f8", 0, size, values.data());
  return values;
}

inline void write(const std::string& path, const std::vector<double>& values) {
  std::string text = "{'descr': '<f8', 'fortran_order': False, 'shape': (" + std::to_string(values.size()) + ",), }";
  while ((10 + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  const unsigned char length[2] = {(unsigned char)(text.size() & 255), (unsigned char)(text.size() >> 8)};
  const File file = open(path, "wb");
  std::fwrite("\x93NUMPY\x01\x00", 1, 8, file.get());
  std::fwrite(length, 1, 2, file.get());
  std::fwrite(text.data(), 1, text.size(), file.get());
  if (std::fwrite(values.data(), sizeof(double), values.size(), file.get()) != values.size())
    throw std::runtime_error("cannot write " + path);
}

}  // namespace peers::npy
