#include "posix/entropy.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <set>
#include <string>
#include <thread>

namespace bascule::posix {
namespace {

TEST(SystemEntropy, NoDrawIsLikeAnother) {
  SystemEntropy entropy;
  std::set<std::string> seen;
  for (size_t bytes = 8; bytes < 300; ++bytes) {
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(seen.insert(entropy.hex(bytes).substr(0, 16)).second);
  }
  std::string of_thread;
  std::thread([&] { of_thread = entropy.hex(16); }).join();
  EXPECT_TRUE(seen.insert(of_thread.substr(0, 16)).second);
}

TEST(SystemEntropy, AChildDrawsOtherBytesThanItsParent) {
  SystemEntropy entropy;
  (void)entropy.hex(8);  // there is a stock
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::string drawn = entropy.hex(16);
    ::_exit(::write(ends[1], drawn.data(), drawn.size()) == 32 ? 0 : 1);
  }
  std::string of_child(32, '\0');
  EXPECT_EQ(::read(ends[0], of_child.data(), of_child.size()), 32);
  int status = 1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_NE(of_child, entropy.hex(16));
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace bascule::posix
