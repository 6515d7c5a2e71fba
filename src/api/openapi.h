// The OpenAPI 3.1 document of the HTTP API, for GET /openapi.json.
#pragma once

#include <string>

#include "api/documents.h"

namespace bascule::api {

Json openapi_json(const std::string& version);

}  // namespace bascule::api
