// Any pgbouncer.ini gives a bascule.yaml that at least is one, and notes that name no value.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/config.h"
#include "cli/import_pgbouncer.h"
#include "fuzz/check.h"

using namespace bascule;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // %include leads into the text itself: the bounds on depth and number have to hold.
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto read = [&](const std::string&) -> Result<std::string> { return text; };
  const cli::Ini ini = cli::parse_pgbouncer_ini(text, "pgbouncer.ini", read);
  BASCULE_FUZZ_CHECK(ini.entries.size() <= 100'000);
  const cli::Import import = cli::import_pgbouncer(ini);
  (void)cli::render_import(import);
  (void)cli::import_json(import);
  const auto config = cli::parse_config(import.yaml, "bascule.yaml");
  // What is missing may be missing, but what is written is YAML with keys that exist.
  if (!config) {
    BASCULE_FUZZ_CHECK(config.error().message.find("unknown key") == std::string::npos);
    BASCULE_FUZZ_CHECK(config.error().message.find("is there twice") == std::string::npos);
  }
  return 0;
}
