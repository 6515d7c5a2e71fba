// Any bascule.yaml is refused with messages that name the file, or accepted; and the same twice.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/config.h"
#include "fuzz/check.h"

using namespace bascule;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = cli::parse_config(text, "/etc/file");
  if (!config) {
    BASCULE_FUZZ_CHECK(config.error().message.starts_with("/etc/file"));
    return 0;
  }
  BASCULE_FUZZ_CHECK(config->node || config->monitor || config->proxy || config->api);
  BASCULE_FUZZ_CHECK(config->standalone() || !config->cluster.empty());
  const auto again = cli::parse_config(cli::render_cluster_config(config->defaults), "file");
  BASCULE_FUZZ_CHECK(!again);  // its keys belong below `defaults`
  return 0;
}
