#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "client.hpp"

namespace tidemark::sim {

inline constexpr std::uint64_t k_max_length = 200'000;
/// What an operation leaves to do behind its answer, as a destroyed writer's end, has ended then.
inline constexpr std::chrono::minutes k_settling{2};

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

/// One line of what clients do, when asked for.
inline void trace(Life& life, const Upload& upload, const std::string& what) {
  if (life.machine.is_verbose) life.machine.log(upload.id + ": " + what);
}

inline std::string text_of(const Piece& piece) {
  return std::to_string(piece.from) + ".." + std::to_string(piece.to) + " of " +
         std::to_string(piece.seed);
}

inline std::string text_of(const AppendResult& result) {
  constexpr const char* k_names[] = {"committed", "conflict", "mismatch", "taken over", "canceled"};
  return std::string(k_names[static_cast<int>(result.status)]) + " at " +
         std::to_string(result.offset);
}

/// Metadata as they are stored: JSON, and then what JSON cannot hold.
inline std::string text_of(const Metadata& metadata) {
  return metadata.to_json() + metadata.to_extra_json();
}

/// None that anybody else sets.
inline Metadata some_metadata(Life& life) {
  const std::string number = std::to_string(life.model.new_seed());
  Metadata metadata;
  metadata.set("number", number);
  if (life.machine.chance().once_in(3)) metadata.set_binary("bytes", as_bytes(number));
  if (life.machine.chance().once_in(3)) metadata.set_flag("flag");
  return metadata;
}

inline SystemTime some_expiry(Machine& machine) {
  return machine.system_now() + std::chrono::milliseconds(machine.chance().below(30'000));
}

/// Matches, or not, as the story wants it.
class KnownChecksum final : public Checksum {
 public:
  explicit KnownChecksum(bool matches) : matches_(matches) {}
  void update(std::span<const std::byte>) override {}
  bool matches() override { return matches_; }

 private:
  const bool matches_;
};

/// Sizes at which the storage takes different ways.
inline std::uint64_t some_size(Random& chance) {
  switch (chance.below(8)) {
    case 0:
      return 4096 * chance.between(1, 20);
    case 1:
      return 4096 * chance.between(1, 3) + chance.below(3) - 1;
    case 2:
      return chance.between(1, 70'000);
    case 3:
      return chance.between(1, 20'000);
    default:
      return chance.between(1, 1500);
  }
}

}  // namespace tidemark::sim
