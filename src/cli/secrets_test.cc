#include "cli/secrets.h"

#include <gtest/gtest.h>

namespace bascule::cli {
namespace {

TEST(Userlist, ReadsWhatItRendered) {
  const std::string text = render_userlist({{"app", "SCRAM-SHA-256$4096:x$y:z"}, {"o\"k", "p w"}});
  const auto users = parse_userlist("; comment\n\n" + text + "  # more\n", "users");
  ASSERT_TRUE(users) << users.error().message;
  ASSERT_EQ(users->size(), 2u);
  EXPECT_EQ((*users)[0].name, "app");
  EXPECT_EQ((*users)[0].secret, "SCRAM-SHA-256$4096:x$y:z");
  EXPECT_EQ((*users)[1].name, "o\"k");
}

TEST(Userlist, ErrorsNameTheLineAndNeverTheSecret) {
  for (const char* bad : {"\"app\"", "app \"x\"", "\"app\" \"hunter2", "\"\" \"hunter2\""}) {
    const auto users = parse_userlist(std::string("\n") + bad, "users");
    ASSERT_FALSE(users) << bad;
    EXPECT_NE(users.error().message.find("users:2:"), std::string::npos);
    EXPECT_EQ(users.error().message.find("hunter2"), std::string::npos);
  }
}

}  // namespace
}  // namespace bascule::cli
