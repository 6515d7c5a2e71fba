// For fuzzers: a property that must hold, in every build.
#pragma once

#include <cstdio>
#include <cstdlib>

#define BASCULE_FUZZ_CHECK(condition)                                                \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)
