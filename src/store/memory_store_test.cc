#include "store/memory_store.h"

#include "store/contract_test.h"

namespace bascule::store::contract {
namespace {

struct Memory {
  int created = 1;
  std::unique_ptr<MemoryBackend> backend = std::make_unique<MemoryBackend>("memory-1");

  std::unique_ptr<Store> open(Harness& h) {
    return std::make_unique<MemoryStore>(*backend, h.loop);
  }
  void wipe() { backend = std::make_unique<MemoryBackend>("memory-" + std::to_string(++created)); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Memory, StoreContract, Memory);

}  // namespace
}  // namespace bascule::store::contract
