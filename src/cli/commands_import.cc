// bascule import: from PgBouncer's configuration to ours.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/import_pgbouncer.h"

namespace bascule::cli {
namespace {

constexpr size_t kIniBytesMax = 1 << 20;

}  // namespace

int import_command(const Platform& platform, const ImportOptions& options) {
  const ReadText read = [&](const std::string& path) {
    return platform.disk.read(path, kIniBytesMax);
  };
  const auto text = read(options.file);
  if (!text) return report(text.error());
  const Import import = import_pgbouncer(parse_pgbouncer_ini(*text, options.file, read));
  if (!options.output.empty()) {
    std::error_code error;
    if (std::filesystem::exists(options.output, error) && !options.force) {
      return report({ErrorCode::kConflict, fmt::format("{} exists already", options.output),
                     "--force replaces it"});
    }
    std::ofstream out(options.output, std::ios::binary | std::ios::trunc);
    out << import.yaml;
    out.close();
    if (!out) return report({ErrorCode::kInternal, "cannot write " + options.output, ""});
  }
  if (options.json) {
    fmt::print("{}\n", import_json(import));
  } else {
    fmt::print(stderr, "{}", render_import(import));
    if (options.output.empty()) fmt::print("{}", import.yaml);
  }
  return import.complete() ? kExitOk : kExitFailed;
}

}  // namespace bascule::cli
