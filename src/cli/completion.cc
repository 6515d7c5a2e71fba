#include "cli/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace bascule::cli {
namespace {

std::string names(const std::vector<CommandWords>& commands) {
  std::string out;
  for (const CommandWords& command : commands) {
    if (!out.empty()) out += ' ';
    out += command.name;
  }
  return out;
}

}  // namespace

std::string bash_completion(const std::vector<CommandWords>& commands) {
  std::string cases;
  for (const CommandWords& command : commands) {
    cases +=
        fmt::format("    {}) words=\"{}\" ;;\n", command.name, fmt::join(command.options, " "));
  }
  return fmt::format(
      "_bascule() {{\n"
      "  local words current=${{COMP_WORDS[COMP_CWORD]}}\n"
      "  if [[ $COMP_CWORD -eq 1 ]]; then\n"
      "    COMPREPLY=($(compgen -W \"{}\" -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${{COMP_WORDS[1]}} in\n{}  esac\n"
      "  case $current in\n"
      "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;\n"
      "    *) COMPREPLY=($(compgen -f -- \"$current\")) ;;\n"
      "  esac\n"
      "}}\n"
      "complete -o filenames -F _bascule bascule\n",
      names(commands), cases);
}

std::string zsh_completion(const std::vector<CommandWords>& commands) {
  std::string described;
  std::string cases;
  for (const CommandWords& command : commands) {
    std::string text = command.description;
    std::erase(text, '\'');
    described += fmt::format("    '{}:{}'\n", command.name, text);
    cases +=
        fmt::format("    {}) compadd -- {} ;;\n", command.name, fmt::join(command.options, " "));
  }
  return fmt::format(
      "#compdef bascule\n"
      "_bascule() {{\n"
      "  local -a commands=(\n{}  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  if [[ $PREFIX != -* ]]; then\n"
      "    _files\n"
      "    return\n"
      "  fi\n"
      "  case ${{words[2]}} in\n{}  esac\n"
      "}}\n"
      "compdef _bascule bascule\n",
      described, cases);
}

}  // namespace bascule::cli
