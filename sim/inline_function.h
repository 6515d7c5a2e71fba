// A move-only void() with room for its captures inside, because a simulated second runs thousands
// of events and an allocation each would be most of their cost. Captures over kBytes go to the
// heap.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace bascule::sim {

class InlineFunction {
 public:
  static constexpr size_t kBytes = 72;

  InlineFunction() = default;
  template <typename F>
    requires(!std::is_same_v<std::decay_t<F>, InlineFunction>)
  InlineFunction(F&& f) {  // NOLINT(google-explicit-constructor): stands in for any callable
    using Fn = std::decay_t<F>;
    if constexpr (sizeof(Fn) <= kBytes && std::is_nothrow_move_constructible_v<Fn>) {
      new (bytes_) Fn(std::forward<F>(f));
      ops_ = &kInline<Fn>;
    } else {
      using Box = std::unique_ptr<Fn>;
      new (bytes_) Box(std::make_unique<Fn>(std::forward<F>(f)));
      ops_ = &kBoxed<Fn>;
    }
  }
  InlineFunction(InlineFunction&& other) noexcept { take(other); }
  InlineFunction& operator=(InlineFunction&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  ~InlineFunction() { reset(); }

  void operator()() { ops_->call(bytes_); }
  void reset() {
    if (ops_ != nullptr) std::exchange(ops_, nullptr)->destroy(bytes_);
  }
  explicit operator bool() const { return ops_ != nullptr; }

 private:
  struct Ops {
    void (*call)(std::byte*);
    void (*move)(std::byte* from, std::byte* to);
    void (*destroy)(std::byte*);
  };
  template <typename T>
  static T* at(std::byte* bytes) {
    return std::launder(reinterpret_cast<T*>(bytes));
  }
  template <typename T>
  static void move_to(std::byte* from, std::byte* to) {
    new (to) T(std::move(*at<T>(from)));
    at<T>(from)->~T();
  }
  template <typename T>
  static void destroy_at(std::byte* bytes) {
    at<T>(bytes)->~T();
  }
  template <typename Fn>
  static void call_inline(std::byte* bytes) {
    (*at<Fn>(bytes))();
  }
  template <typename Fn>
  static void call_boxed(std::byte* bytes) {
    (**at<std::unique_ptr<Fn>>(bytes))();
  }
  template <typename Fn>
  static constexpr Ops kInline{&call_inline<Fn>, &move_to<Fn>, &destroy_at<Fn>};
  template <typename Fn>
  static constexpr Ops kBoxed{&call_boxed<Fn>, &move_to<std::unique_ptr<Fn>>,
                              &destroy_at<std::unique_ptr<Fn>>};

  void take(InlineFunction& other) {
    ops_ = std::exchange(other.ops_, nullptr);
    if (ops_ != nullptr) ops_->move(other.bytes_, bytes_);
  }

  const Ops* ops_ = nullptr;
  alignas(std::max_align_t) std::byte bytes_[kBytes];
};

}  // namespace bascule::sim
