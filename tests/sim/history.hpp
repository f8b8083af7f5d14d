#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace tidemark::sim {

/// What one value was set to, one after the other: it is the last that was acknowledged, or one
/// that was tried since.
///
/// Thread safety: none.
template <class T>
class History {
 public:
  explicit History(T value = T()) { tries_.emplace_back(std::move(value)); }

  /// The first of those that it may be now.
  std::size_t first() const { return first_; }
  /// Somebody sets it; gives the place of that.
  std::size_t add(T value) {
    tries_.emplace_back(std::move(value));
    return tries_.size() - 1;
  }
  void acknowledge(std::size_t place) { first_ = std::max(first_, place); }
  /// It was refused.
  void withdraw(std::size_t place) { tries_[place].reset(); }

  /// Whether one of those that it may have been from the place `since` on is such.
  template <class Predicate>
  bool any(std::size_t since, Predicate is_such) const {
    return std::any_of(tries_.begin() + static_cast<std::ptrdiff_t>(since), tries_.end(),
                       [&](const std::optional<T>& each) { return each && is_such(*each); });
  }
  bool may_be(const T& value, std::size_t since) const {
    return any(since, [&](const T& each) { return each == value; });
  }

 private:
  std::vector<std::optional<T>> tries_;
  std::size_t first_ = 0;
};

}  // namespace tidemark::sim
