#pragma once

// The checksums of SQLite's log: from the first frame on whose checksum is wrong, SQLite takes the
// log for ended. See section 4 of its file format.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace tidemark::test {

class LogChecksums {
 public:
  /// Makes all of them right, also those of frames that had a wrong one before.
  static void mend(std::string& log) {
    if (log.size() < k_header_bytes) return;
    LogChecksums checksums(log);
    const std::uint32_t page_bytes = big_endian(log, 8);
    if (page_bytes < 512 || page_bytes > 65'536 || page_bytes % 8 != 0) return;
    checksums.add(0, 24);
    checksums.put(24);
    std::size_t frame = k_header_bytes;
    for (; frame + k_frame_header_bytes + page_bytes <= log.size();
         frame += k_frame_header_bytes + page_bytes) {
      checksums.add(frame, 8);
      checksums.add(frame + k_frame_header_bytes, page_bytes);
      checksums.put(frame + 16);
    }
  }

 private:
  static constexpr std::size_t k_header_bytes = 32;
  static constexpr std::size_t k_frame_header_bytes = 24;

  explicit LogChecksums(std::string& log) : log_(log), is_big_((big_endian(log, 0) & 1) != 0) {}

  static std::uint32_t big_endian(const std::string& log, std::size_t at) {
    std::uint32_t word = 0;
    for (std::size_t i = at; i < at + 4; ++i) word = word << 8 | static_cast<unsigned char>(log[i]);
    return word;
  }
  /// As the checksums read the log.
  std::uint32_t word(std::size_t at) const {
    const std::uint32_t big = big_endian(log_, at);
    return is_big_ ? big : __builtin_bswap32(big);
  }

  void add(std::size_t at, std::size_t bytes) {
    for (const std::size_t end = at + bytes; at < end; at += 8) {
      sums_[0] += word(at) + sums_[1];
      sums_[1] += word(at + 4) + sums_[0];
    }
  }
  void put(std::size_t at) {
    for (const std::uint32_t sum : sums_) {
      for (int shift = 24; shift >= 0; shift -= 8) log_[at++] = static_cast<char>(sum >> shift);
    }
  }

  std::string& log_;
  const bool is_big_;  // The last bit of the log's first word tells.
  std::array<std::uint32_t, 2> sums_{};
};

}  // namespace tidemark::test
