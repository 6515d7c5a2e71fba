#include "posix/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "posix/clock.h"

namespace bascule::posix {
namespace {

std::string ask_system(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, ::freeaddrinfo);
  char text[NI_MAXHOST] = "";
  if (::getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, nullptr, 0,
                    NI_NUMERICHOST) != 0) {
    return {};
  }
  return text;
}

}  // namespace

void Resolver::reply(Question question, std::string address) {
  question.loop->post([answer = std::move(question.answer),
                       address = std::move(address)]() mutable { answer(address); });
}

void Resolver::lookup(const std::string& host, env::Loop& loop, Answer answer) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[host];
  if (!entry.asking && boot_now() < entry.expires) {
    return reply({&loop, std::move(answer)}, entry.address);
  }
  entry.waiting.push_back({&loop, std::move(answer)});
  if (std::exchange(entry.asking, true)) return;
  pool_.submit([this, host] { resolve(host); });
}

void Resolver::resolve(const std::string& host) {
  const std::string address = ask_system(host);
  // The lock is held while the answers are posted: after forget() none is under way.
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[host];
  entry.asking = false;
  entry.address = address;
  entry.expires = boot_now() + (address.empty() ? kKeepFailure : kKeep);
  for (Question& question : std::exchange(entry.waiting, {})) reply(std::move(question), address);
}

void Resolver::forget(env::Loop& loop) {
  const std::lock_guard lock(mutex_);
  for (auto& [host, entry] : entries_) {
    std::erase_if(entry.waiting, [&](const Question& q) { return q.loop == &loop; });
  }
}

}  // namespace bascule::posix
