#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>

#include "attnreg/files.hpp"
#include "files/input_file.hpp"
#include "files/source.hpp"
#include "files/source_name.hpp"
#include "support/npy_bytes.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_npy {

using test::column_major;
using test::npy_bytes;
using test::npy_dictionary;
using test::scalar_bytes;
using test::TemporaryDirectory;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

/// The message of the `InvalidArgument` that `call` throws, or what happened instead.
template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("(another exception) ") + error.what();
  }
  return "(accepted)";
}

std::string header_refusal(const std::string& bytes) {
  return refusal([&] { parse_npy_header(bytes, static_cast<std::int64_t>(bytes.size()), "A.npy"); });
}

std::string dictionary_refusal(const std::string& dictionary) { return header_refusal(npy_bytes(dictionary, "")); }

template <class Scalar>
std::vector<std::uint64_t> bits(const std::vector<Scalar>& values) {
  std::vector<std::uint64_t> result;
  for (const Scalar value : values) result.push_back(std::bit_cast<std::uint64_t>(static_cast<double>(value)));
  return result;
}

/// 4 x 3, with values whose bytes all differ, both zeros, a subnormal and the extremes of float.
const std::vector<float> float_rows{1.2345678f,      -0.0f,       0.0f, std::numeric_limits<float>::max(),
                                    -3.1415927e-20f, 1.0e-45f,    7.0f, std::numeric_limits<float>::lowest(),
                                    -1.1754944e-38f, 16777216.0f, 0.1f, -2.5f};
const std::vector<double> double_rows{1.23456789012345678,
                                      -0.0,
                                      0.0,
                                      std::numeric_limits<double>::max(),
                                      -3.14159e-200,
                                      5e-324,
                                      7.0,
                                      std::numeric_limits<double>::lowest(),
                                      2.2250738585072014e-308,
                                      9007199254740993.0,
                                      0.1,
                                      -2.5};

struct Format {
  std::string descr;
  bool single, big_endian, fortran_order;
  int version;
};

std::vector<Format> all_formats() {
  constexpr bool native_big = std::endian::native == std::endian::big;
  std::vector<Format> formats;
  for (const int version : {1, 2, 3}) {
    for (const bool fortran_order : {false, true}) {
      for (const char* const type : {"f4", "f8"}) {
        const bool single = std::string(type) == "f4";
        formats.push_back({std::string("<") + type, single, false, fortran_order, version});
        formats.push_back({std::string(">") + type, single, true, fortran_order, version});
        formats.push_back({std::string("=") + type, single, native_big, fortran_order, version});
        formats.push_back({type, single, native_big, fortran_order, version});
      }
    }
  }
  return formats;
}

template <class Scalar>
std::string file_of(const Format& format, const std::vector<Scalar>& rows) {
  const auto stored = format.fortran_order ? column_major(rows, 3) : rows;
  return npy_bytes(npy_dictionary(format.descr, format.fortran_order, "(4, 3)"),
                   scalar_bytes(stored, format.big_endian), format.version);
}

template <class Scalar>
std::vector<Scalar> rows_of(const Source& header, std::int64_t first, std::int64_t rows) {
  std::vector<Scalar> values(static_cast<std::size_t>(rows * header.columns()), Scalar{42});
  read_rows(header, first, rows, std::span<Scalar>(values));
  return values;
}

TEST(Npy, ReadsEveryFormatBitByBit) {
  const TemporaryDirectory directory;
  for (const Format& format : all_formats()) {
    SCOPED_TRACE(format.descr + (format.fortran_order ? " F " : " C ") + std::to_string(format.version));
    const auto path =
        directory.write("A.npy", format.single ? file_of(format, float_rows) : file_of(format, double_rows));
    const Source header = open_source(path);
    EXPECT_EQ(header.type, format.single ? Storage::float32 : Storage::float64);
    EXPECT_EQ(header.element.big_endian, format.big_endian);
    EXPECT_EQ(header.fortran_order, format.fortran_order);
    EXPECT_EQ(header.version_major, format.version);
    EXPECT_THAT(header.shape, ElementsAre(4, 3));
    for (std::int64_t first = 0; first <= 4; ++first) {
      for (std::int64_t rows = 0; first + rows <= 4; ++rows) {
        const auto range = [&](const auto& all) {
          return std::vector(all.begin() + first * 3, all.begin() + (first + rows) * 3);
        };
        const auto expected = format.single ? bits(range(float_rows)) : bits(range(double_rows));
        EXPECT_EQ(bits(rows_of<double>(header, first, rows)), expected);
        if (format.single) {
          EXPECT_EQ(bits(rows_of<float>(header, first, rows)), expected);
        }
      }
    }
  }
}

TEST(Npy, RoundsDoublesToFloatOnce) {
  const TemporaryDirectory directory;
  const std::vector<double> values{0.1, 16777217.0, -1.0000000596046448};
  const auto path = directory.write("A.npy", npy_bytes(npy_dictionary("<f8", false, "(1, 3)"), scalar_bytes(values)));
  EXPECT_THAT(rows_of<float>(open_source(path), 0, 1), ElementsAre(0.1f, 16777216.0f, -1.0f));
}

TEST(Npy, ReadsHalves) {
  // 1, -2, the largest number, the smallest and the smallest normal one, 1/3 rounded, both zeros, infinity
  const std::vector<std::uint16_t> halves{0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x3555, 0x0000, 0x8000, 0x7c00};
  const std::vector<double> values{1, -2, 65504, 0x1p-24, 0x1p-14, 0x1.554p-2, 0.0, -0.0, HUGE_VAL};
  const TemporaryDirectory directory;
  for (const bool big_endian : {false, true})
    for (const bool fortran_order : {false, true}) {
      std::string data;
      for (const std::uint16_t half : fortran_order ? column_major(halves, 3) : halves)
        for (const int byte : big_endian ? std::array{1, 0} : std::array{0, 1})
          data += static_cast<char>(half >> (8 * byte) & 0xff);
      const auto path = directory.write(
          "A.npy", npy_bytes(npy_dictionary(big_endian ? ">f2" : "<f2", fortran_order, "(3, 3)"), data));
      const Source header = open_source(path);
      EXPECT_EQ(header.dtype_text(), big_endian ? ">f2" : "<f2");
      EXPECT_EQ(header.type, Storage::float16);
      EXPECT_EQ(bits(rows_of<double>(header, 0, 3)), bits(values));
      EXPECT_EQ(bits(rows_of<float>(header, 0, 3)), bits(values));
    }
}

TEST(Npy, ReadsMatricesLargerThanItsBuffers) {
  const TemporaryDirectory directory;
  constexpr std::int64_t rows = 40'000, columns = 19;
  std::vector<float> values(rows * columns);
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = static_cast<float>(k);
  for (const bool fortran_order : {false, true}) {
    const auto stored = fortran_order ? column_major(values, columns) : values;
    const auto path = directory.write(
        "A.npy", npy_bytes(npy_dictionary(">f4", fortran_order, "(40000, 19)"), scalar_bytes(stored, true)));
    std::vector<double> read((rows - 5) * columns);
    read_rows(open_source(path), 3, rows - 5, std::span<double>(read));
    EXPECT_TRUE(std::equal(read.begin(), read.end(), values.begin() + 3 * columns)) << fortran_order;
  }
}

TEST(Npy, ReadsVectors) {
  const TemporaryDirectory directory;
  for (const bool fortran_order : {false, true}) {
    const auto path = directory.write(
        "b.npy", npy_bytes(npy_dictionary("<f8", fortran_order, "(3,)"), scalar_bytes(std::vector{1.0, 2.0, 3.0})));
    const Source header = open_source(path);
    EXPECT_EQ(header.shape_text(), "(3,)");
    std::vector<double> values(2);
    read_rows(header, 1, 2, std::span<double>(values));
    EXPECT_THAT(values, ElementsAre(2, 3));
  }
}

TEST(Npy, AcceptsEverySpellingOfTheDictionary) {
  for (const char* const dictionary : {
           "{'shape': (2, 1), 'descr': '<f8', 'fortran_order': False}",
           "{\"fortran_order\":False,\"descr\":\"<f8\",\"shape\":(2,1,)}",
           "  { 'descr' : '<f8' , 'fortran_order' : False , 'shape' : ( 2L , 1L ) , }   \n",
       }) {
    const std::string bytes = npy_bytes(dictionary, std::string(16, '\0'));
    const ArrayHeader header = parse_npy_header(bytes, static_cast<std::int64_t>(bytes.size()), "A.npy");
    EXPECT_THAT(header.shape, ElementsAre(2, 1)) << dictionary;
    EXPECT_EQ(header.dtype_text(), "<f8");
    EXPECT_FALSE(header.fortran_order);
  }
}

TEST(Npy, RefusesOtherDtypesWithAdvice) {
  for (const char* const descr :
       {"<i3", "<u16", "<f3", "<f16", "<c16", "|O", "<U3", "|S8", "<V4", "<M8[ns]", "|f8", "<<f8", "", "f"}) {
    EXPECT_THAT(
        dictionary_refusal(npy_dictionary(descr, false, "(1, 1)")),
        AllOf(HasSubstr(std::string("A.npy: found dtype ") + descr), HasSubstr("numpy.asarray(a, dtype='<f8')")))
        << descr;
  }
  EXPECT_THAT(dictionary_refusal("{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (1,)}"),
              HasSubstr("structured dtype"));
}

TEST(Npy, RefusesElementsOfNoBytesAndMoreOfThemThanCanBeCounted) {
  for (const char* const descr : {"<f0", "<i0", "|b0"}) {
    const std::string bytes = npy_bytes(npy_dictionary(descr, false, "(1, 1)"), "");
    EXPECT_THROW(parse_npy_array(bytes, std::ssize(bytes), "A.npy"), InvalidArgument) << descr;
  }
  const std::string shape = "(4333033333, 4333033333, 3)";
  for (const char* const descr : {"|S0", "<U0", "|V0", "|S1"}) {
    const std::string bytes = npy_bytes(npy_dictionary(descr, false, shape), "");
    EXPECT_THROW(parse_npy_array(bytes, std::ssize(bytes), "A.npy"), InvalidArgument) << descr;
  }
}

TEST(Npy, RefusesDamagedDictionaries) {
  const std::string start = "{'descr': '<f8', 'fortran_order': False, 'shape': ";
  for (const std::string& dictionary :
       std::vector<std::string>{"",
                                "{",
                                "{}",
                                "}",
                                "{,}",
                                "[]",
                                "{'descr'}",
                                "{'descr':}",
                                "{descr: '<f8'}",
                                start,
                                start + "(",
                                start + "(1",
                                start + "(1,",
                                start + "(1,)",
                                start + "(1,)}}",
                                start + "(1,)} x",
                                start + "((1,),)}",
                                start + "[1]}",
                                start + "(,)}",
                                start + "(1,,2)}",
                                start + "(1 2)}",
                                start + "(1.0,)}",
                                start + "(1e3,)}",
                                start + "(0x10,)}",
                                start + "(+1,)}",
                                start + "(True,)}",
                                start + "(01,)}",
                                start + "None}",
                                start + "(1)}",
                                start + "1}",
                                start + "(1_0,)}",
                                start + "(1,), 'shape': (1,)}",
                                start + "(1,), 'x': 1}",
                                start + "(1,),,}",
                                start + "(1,) 'x'}",
                                start + std::string(10'000, '(') + "}",
                                "{'descr': '<f8', 'shape': (1,)}",
                                "{'fortran_order': False, 'shape': (1,)}",
                                "{'descr': '<f8', 'fortran_order': False}",
                                "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}",
                                "{'descr': '<f8', 'fortran_order': 'False', 'shape': (1,)}",
                                "{'descr': '<f8', 'fortran_order': Falsehood, 'shape': (1,)}",
                                "{'descr': <f8, 'fortran_order': False, 'shape': (1,)}",
                                "{'descr': '\\x3cf8', 'fortran_order': False}",
                                "{'descr\": '<f8', 'fortran_order': False, 'shape': (1,)}",
                                std::string(300, '\0'),
                                start + "(1,)}" + std::string(1, '\0')}) {
    const std::string message = header_refusal(npy_bytes(dictionary, std::string(8, '\0')));
    EXPECT_THAT(message, HasSubstr("A.npy: ")) << dictionary;
  }
  EXPECT_THAT(dictionary_refusal(start + "(-1, 3)}"), HasSubstr("negative"));
  EXPECT_THAT(dictionary_refusal(start + "(99999999999999999999,)}"), HasSubstr("above 2^63"));
  EXPECT_THAT(dictionary_refusal(start + "(1,), 'shape': (1,)}"), HasSubstr("'shape' twice"));
  EXPECT_THAT(dictionary_refusal("{'descr': '<f8', 'shape': (1,)}"), HasSubstr("no key 'fortran_order'"));
  std::string many;
  for (int k = 0; k < 65; ++k) many += "1,";
  EXPECT_THAT(dictionary_refusal(start + "(" + many + ")}"), HasSubstr("more than 64 extents"));
}

TEST(Npy, RefusesShapesThatWrapAround) {
  for (const char* const shape :
       {"(4611686018427387904, 4)", "(9223372036854775807,)", "(4294967296, 4294967296)", "(3037000500, 3037000500)",
        "(2305843009213693952, 1)", "(1152921504606846975,)", "(4611686018427387904, 4, 0)"}) {
    EXPECT_THAT(dictionary_refusal(npy_dictionary("<f8", false, shape)), HasSubstr("needs more than 2^63 bytes"))
        << shape;
  }
}

TEST(Npy, RefusesHostileLengths) {
  std::string bytes = npy_bytes("", "", 2);
  bytes.replace(8, 4, "\xff\xff\xff\xff");
  EXPECT_THAT(header_refusal(bytes), AllOf(HasSubstr("4294967295"), HasSubstr("at most 65536")));
  EXPECT_THAT(header_refusal(npy_bytes(std::string(65537, ' '), "", 2)), HasSubstr("at most 65536"));
  const std::string longest = npy_dictionary("<f8", false, "(1,)");
  const std::string padded = longest + std::string(65536 - longest.size(), ' ');
  EXPECT_EQ(header_refusal(npy_bytes(padded, std::string(8, '\0'), 2)), "(accepted)");
  for (const char* const version : {"\x04", "\xff"}) {
    std::string other = npy_bytes(longest, std::string(8, '\0'));
    other[6] = version[0];
    EXPECT_THAT(header_refusal(other), HasSubstr("format version"));
  }
}

TEST(Npy, TellsWhatElseAFileIs) {
  EXPECT_THAT(header_refusal(""), HasSubstr("empty"));
  EXPECT_THAT(header_refusal("PK\x03\x04 and more bytes"), HasSubstr(".npz"));
  EXPECT_THAT(header_refusal("\x1f\x8b\x08 and more bytes"), HasSubstr("gzip"));
  EXPECT_THAT(header_refusal("1.0,2.0,3.0\n"), HasSubstr("not a .npy file"));
}

TEST(Npy, RefusesEveryTruncationAndTrailingBytes) {
  const TemporaryDirectory directory;
  const std::string whole = npy_bytes(npy_dictionary("<f8", false, "(4, 3)"), scalar_bytes(double_rows));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto path = directory.write("A.npy", whole.substr(0, size));
    const std::string message = refusal([&] { open_source(path); });
    EXPECT_THAT(message, AllOf(HasSubstr("A.npy: "), Not(HasSubstr("(another")))) << size;
    const bool in_data = size >= whole.size() - 96;
    if (in_data) {
      EXPECT_THAT(message, AllOf(HasSubstr("found " + std::to_string(size)), HasSubstr("truncated"),
                                 HasSubstr("expected " + std::to_string(whole.size()))));
    }
  }
  const auto path = directory.write("A.npy", whole + "x");
  EXPECT_THAT(refusal([&] { open_source(path); }), HasSubstr("1 trailing bytes"));
}

TEST(Npy, RefusesWhatIsNotAFile) {
  const TemporaryDirectory directory;
  EXPECT_THAT(refusal([&] { open_source(directory.path("none.npy")); }), HasSubstr("No such file"));
  EXPECT_THAT(refusal([&] { open_source(directory.path("")); }), HasSubstr("directory"));
  EXPECT_EQ(::mkfifo(directory.path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(refusal([&] { open_source(directory.path("pipe")); }), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal([&] { open_source("/dev/zero"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal([&] { open_source(directory.path("\x1b[31mred\n")); }),
              AllOf(HasSubstr("\\x1b[31mred\\x0a"), Not(HasSubstr("\x1b"))));
}

TEST(Npy, NoticesThatTheFileChanged) {
  const TemporaryDirectory directory;
  const std::string whole = npy_bytes(npy_dictionary("<f8", false, "(4, 3)"), scalar_bytes(double_rows));
  const auto path = directory.write("A.npy", whole);
  const Source header = open_source(path);
  std::vector<double> values(12);
  const auto read = [&] { read_rows(header, 0, 4, std::span<double>(values)); };
  EXPECT_EQ(refusal(read), "(accepted)");
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  EXPECT_THAT(refusal(read), HasSubstr("time of modification"));
  std::filesystem::resize_file(path, whole.size() - 8);
  EXPECT_THAT(refusal(read), AllOf(HasSubstr("changed"), HasSubstr(std::to_string(whole.size() - 8) + " bytes")));
  std::filesystem::remove(path);
  EXPECT_THAT(refusal(read), HasSubstr("No such file"));
}

TEST(Npy, RefusesRowsOutsideTheFile) {
  const TemporaryDirectory directory;
  const auto path =
      directory.write("A.npy", npy_bytes(npy_dictionary("<f8", false, "(4, 3)"), scalar_bytes(double_rows)));
  const Source header = open_source(path);
  std::vector<double> values(3);
  for (const auto& [first, rows] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {-1, 1}, {4, 1}, {0, 2}, {0, -1}, {std::numeric_limits<std::int64_t>::max(), 1}}) {
    EXPECT_THROW(read_rows(header, first, rows, std::span<double>(values)), InvalidArgument);
  }
}

TEST(Npy, WritesTheBytesOfNumpy) {
  const TemporaryDirectory directory;
  write_npy(directory.path("a.npy"), std::vector{1.0, -2.0, 0.5, 3.0, 4.0, 5.0}, {2, 3});
  std::string expected("\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", 69);
  expected += std::string(127 - expected.size(), ' ') + "\n" + scalar_bytes(std::vector{1.0, -2.0, 0.5, 3.0, 4.0, 5.0});
  EXPECT_EQ(directory.read("a.npy"), expected);
  for (std::int64_t rows = 1; rows < (std::int64_t{1} << 60); rows *= 3) {
    EXPECT_EQ(npy_header_bytes(npy_dtype(Storage::float32), {rows, rows}).size() % 64, 0u);
    EXPECT_EQ(npy_header_bytes(npy_dtype(Storage::float32), {rows}).back(), '\n');
  }
}

TEST(Npy, ReadsWhatItWrites) {
  const TemporaryDirectory directory;
  write_npy(directory.path("a.npy"), double_rows, {4, 3});
  EXPECT_EQ(bits(rows_of<double>(open_source(directory.path("a.npy")), 0, 4)), bits(double_rows));
  write_npy(directory.path("empty.npy"), std::span<const double>(), {0});
  EXPECT_EQ(open_source(directory.path("empty.npy")).elements(), 0);
}

TEST(Npy, PartsOfArraysAreMatrices) {
  const TemporaryDirectory directory;
  std::vector<double> values(24);
  std::iota(values.begin(), values.end(), 0);
  write_npy(directory.path("a.npy"), values, {4, 3, 2});
  const Source part = open_source(directory.path("a.npy[2]"));
  EXPECT_THAT(part.shape, ElementsAre(3, 2));
  EXPECT_EQ(bits(rows_of<double>(part, 1, 2)), bits(std::vector<double>{14, 15, 16, 17}));
  EXPECT_EQ(bits(rows_of<double>(open_source(directory.path("a.npy[3,2]")), 0, 2)), bits(std::vector<double>{22, 23}));
  EXPECT_EQ(part_of("a.npy", 3), "a.npy[3]");
  EXPECT_EQ(part_of("a.npy[3]", 7), "a.npy[3,7]");
  for (const char* const name :
       {"a.npy[4]", "a.npy[0,0,0]", "a.npy[-1]", "a.npy[]", "a.npy[1,]", "a.npy[1", "a.npy[9999999999999999999]"})
    EXPECT_THROW(open_source(directory.path(name)), InvalidArgument) << name;
  write_npy(directory.path("b[1].npy"), values, {24});  // such names are names first
  write_npy(directory.path("a.npy[2]"), values, {6, 4});
  EXPECT_THAT(open_source(directory.path("b[1].npy")).shape, ElementsAre(24));
  EXPECT_THAT(open_source(directory.path("a.npy[2]")).shape, ElementsAre(6, 4));
}

TEST(Npy, RefusesToWriteAShapeThatDoesNotFit) {
  const TemporaryDirectory directory;
  const std::vector<double> values(6);
  for (const auto& shape : std::vector<std::vector<std::int64_t>>{{}, {5}, {2, 2}, {1, 2, 4}, {-2, -3}, {1, 1, 2, 3}}) {
    EXPECT_THROW(write_npy(directory.path("a.npy"), values, shape), OutputError);
  }
  EXPECT_THAT(directory.names(), ElementsAre());
}

TEST(GrowingArchives, AreRefusedAboveASizeAndARatio) {
  constexpr std::int64_t kHarmless = 1'000'000'000;
  EXPECT_NO_THROW(require_honest_growth("A.npz", 1000, kHarmless));  // whatever the ratio
  EXPECT_THROW(require_honest_growth("A.npz", 1000, kHarmless + 1), InvalidArgument);
  EXPECT_NO_THROW(require_honest_growth("A.npz", 50'000'000, 5'000'000'000));  // whatever the size
  EXPECT_THROW(require_honest_growth("A.npz", 49'000'000, 5'000'000'000), InvalidArgument);
}

}  // namespace attnreg::test_npy
