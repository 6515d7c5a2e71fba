// For the tests of src/pgwire: the exchanges with PostgreSQL 15 recorded in testdata/ (capture.py).
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pgwire/frames.h"
#include "pgwire/startup.h"

namespace bascule::pgwire::testing {

enum class From { kClient, kServer };

struct Chunk {
  From from;
  std::string bytes;
};
using Capture = std::vector<Chunk>;

inline std::filesystem::path testdata() {
  return std::filesystem::path(__FILE__).parent_path() / "testdata";
}

inline std::string unhex(std::string_view hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return out;
}

// Empty if there is no such file.
inline Capture load(const std::string& name) {
  std::ifstream file(testdata() / (name + ".txt"));
  Capture capture;
  for (std::string line; std::getline(file, line);) {
    if (line.size() < 2 || line[0] == '#') continue;
    capture.push_back({line[0] == '>' ? From::kClient : From::kServer, unhex(line.substr(2))});
  }
  return capture;
}

// All captures of a whole session (a cancel request is none), in the order of their names.
inline std::vector<std::string> sessions() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(testdata())) {
    if (entry.path().extension() != ".txt" || entry.path().stem() == "cancel_request") continue;
    names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string stream(const Capture& capture, From from) {
  std::string out;
  for (const Chunk& chunk : capture) {
    if (chunk.from == from) out += chunk.bytes;
  }
  return out;
}

// Those in which the login succeeds.
inline std::vector<std::string> open_sessions() {
  std::vector<std::string> names = sessions();
  std::erase_if(names, [](const std::string& name) {
    return name == "scram_wrong_password" || name == "scram_unknown_user";
  });
  return names;
}

struct Message {
  char type;
  std::string payload;
  bool operator==(const Message&) const = default;
};

// The simplest possible reading, to compare others with. The start-up packet of a client is left
// out.
inline std::vector<Message> messages(const Capture& capture, From from) {
  const std::string bytes = stream(capture, from);
  std::string_view rest = bytes;
  if (from == From::kClient) rest.remove_prefix(peek_startup(rest).size);
  std::vector<Message> out;
  while (!rest.empty()) {
    const Frame frame = peek_frame(rest, kMaxPayload);
    if (frame.state != FrameState::kComplete) std::abort();
    out.push_back({frame.type, std::string(frame.payload)});
    rest.remove_prefix(frame.size());
  }
  return out;
}

inline std::vector<Message> of_type(const std::vector<Message>& all, char type) {
  std::vector<Message> out;
  for (const Message& m : all) {
    if (m.type == type) out.push_back(m);
  }
  return out;
}

// A reader of one direction as a relay has it: keeps what the scanner leaves, hands on each piece.
class Pump {
 public:
  using Sink = std::function<void(const Scan&)>;
  explicit Pump(const FramePolicy& policy) : scanner_(policy) {}

  // False once the stream is bad.
  bool feed(std::string_view bytes, const Sink& sink) {
    unread_.append(bytes);
    while (true) {
      const Scan scan = scanner_.next(unread_);
      if (scan.kind == ScanKind::kBad) return false;
      if (scan.kind == ScanKind::kNeedMore) return true;
      sink(scan);
      unread_.erase(0, scan.bytes.size());
    }
  }
  FrameScanner& scanner() { return scanner_; }
  const std::string& unread() const { return unread_; }

 private:
  FrameScanner scanner_;
  std::string unread_;
};

}  // namespace bascule::pgwire::testing
