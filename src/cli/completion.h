// Shell completion, made from the same description of the commands that --help is made from.
#pragma once

#include <string>
#include <vector>

namespace bascule::cli {

struct CommandWords {
  std::string name;
  std::string description;
  std::vector<std::string> options;  // "--dir", ...
};
std::string bash_completion(const std::vector<CommandWords>& commands);
std::string zsh_completion(const std::vector<CommandWords>& commands);

}  // namespace bascule::cli
