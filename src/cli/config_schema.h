// The JSON schema (draft 2020-12, https://json-schema.org) of bascule.yaml, made from what its
// readers ask for. Editors complete and check with it; tests/config_reference.py adds the meanings
// that docs/configuration.md gives and writes docs/bascule.schema.json.
#pragma once

#include <string>
#include <vector>

#include "cli/yaml_reader.h"

namespace bascule::cli {

// Bounds and defaults of durations, sizes and addresses are texts, which JSON schema can't compare:
// they are there as "x-minimum", "x-maximum" and in "default". "x-kind" names the kind of a text.
std::string config_schema(const std::vector<KeyFact>& keys);

}  // namespace bascule::cli
