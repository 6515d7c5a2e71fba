#include "cli/confirm.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>

namespace bascule::cli {

bool confirm(std::string_view what) {
  if (isatty(STDIN_FILENO) == 0) {
    fmt::print(stderr, "bascule: not confirmed: give --yes to {}\n", what);
    return false;
  }
  fmt::print(stderr, "Type yes to {}: ", what);
  std::fflush(stderr);
  std::string answer;
  if (std::getline(std::cin, answer) && answer == "yes") return true;
  fmt::print(stderr, "bascule: nothing was done\n");
  return false;
}

}  // namespace bascule::cli
