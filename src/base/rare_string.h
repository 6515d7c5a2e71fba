// A string that is nearly always empty, in the space of a pointer: idle connections pay for what
// they have, and there are ten thousand of them. Emptied, it gives its memory back.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace bascule {

class RareString {
 public:
  bool empty() const { return text_ == nullptr; }
  size_t size() const { return text_ == nullptr ? 0 : text_->size(); }
  std::string_view view() const {
    return text_ == nullptr ? std::string_view() : std::string_view(*text_);
  }
  operator std::string_view() const { return view(); }

  void clear() { text_.reset(); }
  void append(std::string_view bytes) {
    if (bytes.empty()) return;
    if (text_ == nullptr) text_ = std::make_unique<std::string>();
    text_->append(bytes);
  }
  // `bytes` may be part of what it holds.
  RareString& operator=(std::string_view bytes) {
    if (bytes.empty()) {
      clear();
    } else if (text_ == nullptr) {
      text_ = std::make_unique<std::string>(bytes);
    } else {
      text_->assign(bytes);
    }
    return *this;
  }
  // Empties it.
  std::string take() {
    if (text_ == nullptr) return {};
    return std::move(*std::exchange(text_, nullptr));
  }

 private:
  std::unique_ptr<std::string> text_;
};

}  // namespace bascule
