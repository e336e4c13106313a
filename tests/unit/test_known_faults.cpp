// The doctor's list of faulty versions: what matches, what does not, and what becomes of it on the page.
#include <gmock/gmock.h>

#include <cctype>

#include "app/node/checks.hpp"
#include "app/node/known_faults.hpp"
#include "ranks/mpi_facts.hpp"

namespace attnreg::app::test_known_faults {

using testing::HasSubstr;
using testing::IsEmpty;
using Libraries = std::vector<MessageLibrary>;

std::vector<std::string> harms(const Libraries& libraries) {
  std::vector<std::string> found;
  for (const auto& fault : known_faults_of(libraries)) found.emplace_back(fault.harm);
  return found;
}

TEST(KnownFaults, EveryEntrySaysWhereItIsFromAndWhatToDo) {
  for (const auto& fault : known_faults()) {
    EXPECT_TRUE(fault.source.starts_with("https://")) << fault.harm;
    EXPECT_FALSE(fault.harm.empty() || fault.cure.empty() || fault.versions.empty()) << fault.source;
    EXPECT_EQ(fault.partner.empty(), fault.partner_versions.empty()) << fault.source;
  }
}

TEST(KnownFaults, RangesBeginWithTheFirstAndEndBeforeTheMendedVersion) {
  for (const char* version : {"2.1.0", "2.1.4", "3.0.0", "3.1.0", "3.1.1"})
    EXPECT_THAT(harms({{"Open MPI", version, ""}}), testing::ElementsAre(HasSubstr("lose messages"))) << version;
  for (const char* version : {"2.1.5", "2.1.10", "3.0.1", "3.1.2", "3.1.10", "4.1.4", "5.0.3", ""})
    EXPECT_THAT(harms({{"Open MPI", version, ""}}), IsEmpty()) << version;
  for (const char* version : {"4.1", "4.1.2"})
    EXPECT_THAT(harms({{"MPICH", version, ""}}), testing::ElementsAre(HasSubstr("MPI_Reduce"))) << version;
  for (const char* version : {"4.0.3", "4.1.3", "4.2.0"})
    EXPECT_THAT(harms({{"MPICH", version, ""}}), IsEmpty()) << version;
  EXPECT_THAT(harms({{"Another MPI", "4.1", ""}}), IsEmpty());
}

TEST(KnownFaults, PairsNeedBoth) {
  EXPECT_THAT(harms({{"Open MPI", "4.1.0", ""}, {"UCX", "1.8.0", ""}}), testing::ElementsAre(HasSubstr("UCX 1.8.0")));
  EXPECT_THAT(harms({{"Open MPI", "4.1.1", ""}, {"UCX", "1.8.0", ""}}), IsEmpty());
  EXPECT_THAT(harms({{"Open MPI", "4.1.0", ""}, {"UCX", "1.8.1", ""}}), IsEmpty());
  EXPECT_THAT(harms({{"Open MPI", "4.1.5", ""}, {"PMIx", "4.2.7", ""}}), testing::ElementsAre(HasSubstr("daemons")));
  EXPECT_THAT(harms({{"Open MPI", "4.1.6", ""}, {"PMIx", "4.2.7", ""}}), IsEmpty());
  EXPECT_THAT(harms({{"PMIx", "4.2.7", ""}}), IsEmpty());
}

TEST(KnownFaults, MendedPackagesKeepTheVersionNumber) {
  EXPECT_THAT(harms({{"PMIx", "4.2.2rc2", ""}}), testing::ElementsAre(HasSubstr("CVE-2023-41915")));
  EXPECT_THAT(harms({{"PMIx", "4.2.2rc2", "4.2.2-1"}}), testing::SizeIs(1));
  EXPECT_THAT(harms({{"PMIx", "4.2.2rc2", "4.2.2-1+deb12u1"}}), IsEmpty());
  for (const char* version : {"3.2.4", "4.0.0", "4.1.2", "4.2.5", "5.0.0"})
    EXPECT_THAT(harms({{"PMIx", version, ""}}), testing::SizeIs(1)) << version;
  for (const char* version : {"3.2.5", "4.0.1", "4.1.3", "4.2.6", "5.0.1", "6.0.0"})
    EXPECT_THAT(harms({{"PMIx", version, ""}}), IsEmpty()) << version;
}

TEST(KnownFaults, MpiLibrariesAreNamed) {
  const auto name = [](const char* text) {
    const MessageLibrary library = mpi_library(text);
    return library.name + "|" + library.version;
  };
  EXPECT_EQ("Open MPI|4.1.4", name("Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4"));
  EXPECT_EQ("MPICH|4.0.2", name("MPICH Version:      4.0.2\nMPICH Release date: ..."));
  EXPECT_EQ("Intel(R) MPI Library 2021.9 for Linux* OS|", name("Intel(R) MPI Library 2021.9 for Linux* OS\n"));
  EXPECT_EQ("|", name(""));
}

TEST(KnownFaults, TheRunningMpiIsFound) {
  const Libraries libraries = message_libraries();
  ASSERT_FALSE(libraries.empty());
  EXPECT_THAT(mpi_facts().library, HasSubstr(libraries[0].name));
  for (const auto& library : libraries)
    EXPECT_TRUE(library.version.empty() || std::isdigit(static_cast<unsigned char>(library.version[0])))
        << library.name;
}

TEST(KnownFaults, WrongNumbersAreAProblemOthersANote) {
  NodeFacts good, bad;
  good.libraries = {{"Open MPI", "4.1.6", ""}};
  bad.rank = 1;
  bad.host = "w1";
  bad.libraries = {{"Open MPI", "3.1.1", ""}, {"PMIx", "3.1.2", ""}};
  const auto lines = [](const std::vector<NodeFacts>& ranks) {
    std::string text;
    for (const auto& check : checks({}, ranks, {}))
      if (check.name == "libraries" || check.name == "known fault")
        text += status_name(check.status) + " " + check.found + "\n";
    return text;
  };
  EXPECT_EQ("good Open MPI 4.1.6: none of the known faults\n", lines({good, good}));
  EXPECT_EQ(
      "note Open MPI 4.1.6; Open MPI 3.1.1, PMIx 3.1.2 on w1\n"
      "problem Open MPI 3.1.1, PMIx 3.1.2 on w1: a race in shared memory (vader) may crash ranks or lose messages\n"
      "note Open MPI 3.1.1, PMIx 3.1.2 on w1: CVE-2023-41915: where root runs PMIx, as Slurm does, users can become "
      "owners of any file\n",
      lines({good, bad, bad}));
}

}  // namespace attnreg::app::test_known_faults
