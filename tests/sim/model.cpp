#include "model.hpp"

#include <algorithm>
#include <cstring>

namespace tidemark::sim {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t mix(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

/// The first bytes of a trial may be those of the one before it as well.
constexpr std::uint64_t k_alike_by_chance = 5;

}  // namespace

std::string Piece::bytes(std::uint64_t first, std::uint64_t last) const {
  std::string all(last - first, '\0');
  for (std::uint64_t at = first; at < last;) {
    const std::uint64_t own = at - shift;
    const std::uint64_t word = mix((seed << 32) ^ (own / sizeof word));
    const std::uint64_t skipped = own % sizeof word;
    const std::uint64_t size = std::min(sizeof word - skipped, last - at);
    std::memcpy(all.data() + (at - first), reinterpret_cast<const char*>(&word) + skipped, size);
    at += size;
  }
  return all;
}

std::uint64_t Piece::matching(std::string_view content, std::uint64_t at) const {
  if (at < from || to <= at) return 0;
  const std::uint64_t most = std::min(to - at, content.size());
  std::uint64_t size = 0;
  std::uint64_t step = 32;  // Few bytes tell most strangers.
  while (size < most) {
    const std::string own = bytes(at + size, at + std::min(most, size + step));
    const auto [mine, other] = std::ranges::mismatch(own, content.substr(size, own.size()));
    size += static_cast<std::uint64_t>(mine - own.begin());
    if (mine != own.end()) break;
    step = 4096;
  }
  return size;
}

void Upload::fail(const std::string& what) const {
  throw Violation(id + ": " + what);
}

bool Upload::may_be_complete() const {
  if (complete) return true;
  std::uint64_t end = std::max({durable, believed, foreign_offset});
  for (const Piece& piece : tried) end = std::max(end, piece.to);
  return end >= length.value_or(least_length);
}

bool Upload::may_have_expired(SystemTime now, std::size_t since) const {
  return expiry.any(since, [now](const std::optional<SystemTime>& at) { return at && *at <= now; });
}

bool Upload::may_have_rival() const {
  const bool may_be_there = presence == Presence::there || (presence == Presence::tried && makers);
  return may_be_there && !is_private && !is_foreign && !may_expire();
}

void Upload::acknowledge(const Piece& piece) {
  known.push_back(piece);
  acknowledge_offset(piece.to);
}

void Upload::acknowledge_offset(std::uint64_t offset) {
  durable = std::max(durable, offset);
  believed = offset;
}

std::vector<Piece> Upload::attribute(std::string_view content, std::uint64_t from) const {
  std::vector<Piece> found;
  const std::uint64_t end = from + content.size();
  for (std::uint64_t at = from; at < end;) {
    const std::string_view rest = content.substr(at - from);
    const auto owner = std::ranges::find_if(
        known, [at](const Piece& each) { return each.from <= at && at < each.to; });
    Piece part;
    std::uint64_t size = 0;
    if (owner != known.end()) {
      part = *owner;
      size = owner->matching(rest, at);
      if (size < std::min<std::uint64_t>(owner->to - at, rest.size())) {
        fail("byte " + std::to_string(at + size) + " is not the acknowledged writer's");
      }
    } else {
      for (const Piece& trial : tried) {
        // Bytes from the middle of a trial on were left by a writer that lost.
        const bool begins_here = at == from || at < trial.from + k_alike_by_chance;
        const std::uint64_t matching = begins_here ? trial.matching(rest, at) : 0;
        if (matching <= size) continue;
        size = matching;
        part = trial;
      }
      if (size == 0) fail("byte " + std::to_string(at) + " was written by nobody");
      // Where acknowledged bytes begin, only their writer's count.
      for (const Piece& each : known) {
        if (at < each.from) size = std::min(size, each.from - at);
      }
    }
    part.from = at;
    part.to = at + size;
    found.push_back(part);
    at += size;
  }
  return found;
}

void Upload::check_content(std::string_view content, std::uint64_t from) const {
  attribute(content, from);
}

void Upload::settle(std::string_view content) {
  known = attribute(content, 0);
  tried.clear();
  durable = believed = content.size();
  complete = length && durable >= *length;
}

Upload& Model::add(Random& chance) {
  if (chance.once_in(3)) {
    const auto deleted = std::ranges::find_if(uploads_, [](const Upload& upload) {
      return upload.presence == Upload::Presence::gone && upload.released_to.empty() &&
             upload.users == 0;
    });
    if (deleted != uploads_.end()) {
      std::string id = std::move(deleted->id);
      *deleted = Upload();
      deleted->id = std::move(id);
      return *deleted;
    }
  }
  Upload& upload = uploads_.emplace_back();
  upload.id = "u" + std::to_string(++ids_);
  return upload;
}

std::vector<Upload*> Model::all() {
  std::vector<Upload*> all;
  for (Upload& upload : uploads_) {
    if (upload.presence != Upload::Presence::spoiled) all.push_back(&upload);
  }
  return all;
}

Upload* Model::find(std::string_view id) {
  const auto at = std::ranges::find(uploads_, id, &Upload::id);
  return at == uploads_.end() ? nullptr : &*at;
}

}  // namespace tidemark::sim
