#include "files/output_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>

#include "attnreg/error.hpp"
#include "errors/printable.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_output_file {

using test::TemporaryDirectory;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const OutputError& error) {
    return error.what();
  }
  return "(accepted)";
}

/// Every file that grows beyond `bytes` fails with EFBIG, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST(OutputFile, WritesAndReplaces) {
  const TemporaryDirectory directory;
  write_file(directory.path("a"), "first version");
  EXPECT_EQ(directory.read("a"), "first version");
  write_file(directory.path("a"), std::string("\0\n", 2));
  EXPECT_EQ(directory.read("a"), std::string("\0\n", 2));
  write_file(directory.path("a"), "");
  EXPECT_EQ(directory.read("a"), "");
  EXPECT_THAT(directory.names(), ElementsAre("a"));
}

TEST(OutputFile, IsInvisibleUntilPublished) {
  const TemporaryDirectory directory;
  directory.write("a", "old");
  {
    OutputFile file(directory.path("a"));
    file.reserve(6);
    file.write(3, "new");
    file.write(0, "the");
    file.sync();
    EXPECT_EQ(directory.read("a"), "old");
    EXPECT_EQ(directory.names().size(), file.temporary().empty() ? 1u : 2u);
  }
  EXPECT_EQ(directory.read("a"), "old");
  EXPECT_THAT(directory.names(), ElementsAre("a"));
}

TEST(OutputFile, ReservedSpaceThatIsNotUsedIsGivenBack) {
  const TemporaryDirectory directory;
  OutputFile file(directory.path("a"));
  file.reserve(100'000);
  write_file(file, "new");
  EXPECT_EQ(directory.read("a"), "new");
  EXPECT_THAT(directory.names(), ElementsAre("a"));
}

TEST(OutputFile, IsWrittenTogether) {
  const TemporaryDirectory directory;
  OutputFile first(directory.path("a"), OutputFile::Shared::yes);
  EXPECT_EQ(directory.names().size(), 1u);
  {
    OutputFile second(directory.path("a"), first.temporary());
    second.write(3, "def");
    second.sync();
  }
  first.write(0, "abc");
  first.publish();
  EXPECT_EQ(directory.read("a"), "abcdef");
  EXPECT_THAT(directory.names(), ElementsAre("a"));
}

TEST(OutputFile, AvoidsTemporaryFilesOfOthers) {
  const TemporaryDirectory directory;
  const std::string other = "a.tmp." + std::to_string(::getpid()) + ".0";
  std::filesystem::create_symlink(directory.path("victim"), directory.path(other));
  write_file(directory.path("a"), "text");
  EXPECT_EQ(directory.read("a"), "text");
  EXPECT_THAT(directory.names(), ElementsAre("a", other));
}

TEST(OutputFile, RefusesTargetsThatAreNotFiles) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory.path("folder"));
  directory.write("file", "old");
  std::filesystem::create_symlink("file", directory.path("link"));
  std::filesystem::create_symlink("nowhere", directory.path("dangling"));
  EXPECT_EQ(::mkfifo(directory.path("pipe").c_str(), 0600), 0);
  const auto before = directory.names();
  EXPECT_THAT(refusal([&] { write_file(directory.path("folder"), "x"); }), HasSubstr("is a directory"));
  EXPECT_THAT(refusal([&] { write_file(directory.path("folder/"), "x"); }), HasSubstr("name of a file"));
  EXPECT_THAT(refusal([&] { write_file(directory.path("link"), "x"); }), HasSubstr("symbolic link"));
  EXPECT_THAT(refusal([&] { write_file(directory.path("dangling"), "x"); }), HasSubstr("symbolic link"));
  EXPECT_THAT(refusal([&] { write_file(directory.path("pipe"), "x"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal([&] { write_file("/dev/null", "x"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal([&] { write_file("", "x"); }), HasSubstr("name of a file"));
  EXPECT_EQ(directory.names(), before);
  EXPECT_EQ(directory.read("file"), "old");
}

TEST(OutputFile, RefusesATargetThatBecameADirectory) {
  const TemporaryDirectory directory;
  {
    OutputFile file(directory.path("a"));
    std::filesystem::create_directory(directory.path("a"));
    EXPECT_THAT(refusal([&] { file.publish(); }), HasSubstr("is a directory"));
  }
  EXPECT_THAT(directory.names(), ElementsAre("a"));
}

TEST(OutputFile, SaysWhatToDo) {
  const TemporaryDirectory directory;
  directory.write("file", "x");
  EXPECT_THAT(refusal([&] { write_file(directory.path("none/a"), "x"); }),
              AllOf(HasSubstr("none/a"), HasSubstr("No such file"), HasSubstr("create the directory first")));
  EXPECT_THAT(refusal([&] { write_file(directory.path("file/a"), "x"); }), HasSubstr("part of the path is a file"));
  EXPECT_THAT(refusal([&] { write_file(directory.path(std::string(300, 'a')), "x"); }), HasSubstr("shorter name"));
  EXPECT_THAT(refusal([&] { write_file(directory.path("\x1b[2J/a"), "x"); }),
              AllOf(HasSubstr("\\x1b[2J/a"), Not(HasSubstr("\x1b"))));
}

TEST(OutputFile, KeepsTheOldFileWhenAWriteFails) {
  const TemporaryDirectory directory;
  directory.write("a", "old");
  {
    const FileSizeLimit limit(4096);
    EXPECT_THAT(refusal([&] { write_file(directory.path("a"), std::string(10'000, 'x')); }),
                AllOf(HasSubstr("cannot write"), HasSubstr("File too large"), HasSubstr("ulimit")));
    EXPECT_THAT(refusal([&] { OutputFile(directory.path("a")).reserve(10'000); }), HasSubstr("cannot reserve"));
  }
  EXPECT_EQ(directory.read("a"), "old");
  EXPECT_THAT(directory.names(), ElementsAre("a"));
}

TEST(OutputFile, FollowsTheUmask) {
  const TemporaryDirectory directory;
  const mode_t before = ::umask(027);
  write_file(directory.path("a"), "x");
  ::umask(before);
  EXPECT_EQ(std::filesystem::status(directory.path("a")).permissions(), std::filesystem::perms(0640));
}

TEST(CreateDirectories, CreatesWhatIsMissing) {
  const TemporaryDirectory directory;
  create_directories(directory.path("a/b/c"));
  create_directories(directory.path("a/b/c/"));
  EXPECT_TRUE(std::filesystem::is_directory(directory.path("a/b/c")));
  directory.write("file", "x");
  EXPECT_THAT(refusal([&] { create_directories(directory.path("file")); }), HasSubstr("file"));
  EXPECT_THAT(refusal([&] { create_directories(directory.path("file/b")); }), HasSubstr("cannot create the directory"));
  EXPECT_THAT(refusal([&] { create_directories(""); }), HasSubstr("expected a name"));
}

TEST(Printable, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(printable("plain name 1.npy"), "plain name 1.npy");
  EXPECT_EQ(printable("Größe 数 😀"), "Größe 数 😀");
  EXPECT_EQ(printable("\x1b]0;title\x07\r\n\t\x7f"), "\\x1b]0;title\\x07\\x0d\\x0a\\x09\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");  // the control sequence introducer of C1
  EXPECT_EQ(printable("a\xe2\x80\xae"
                      "b"),
            "a\\xe2\\x80\\xae"
            "b");                                                             // right-to-left override
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");                             // never UTF-8; cut off
  EXPECT_EQ(printable("\xc0\x8a\xed\xa0\x80"), "\\xc0\\x8a\\xed\\xa0\\x80");  // overlong newline; surrogate
  EXPECT_EQ(printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");           // above U+10FFFF
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

}  // namespace attnreg::test_output_file
