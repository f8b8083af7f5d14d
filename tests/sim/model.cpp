#include "model.hpp"

#include <algorithm>

namespace tidemark::sim {
namespace {

/// SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t mix(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

}  // namespace

char Piece::byte(std::uint64_t at) const {
  const std::uint64_t own = at - shift;
  return static_cast<char>(mix((seed << 32) ^ (own / 8)) >> (8 * (own % 8)));
}

std::string Piece::bytes() const {
  std::string all(to - from, '\0');
  for (std::uint64_t at = from; at < to; ++at) all[at - from] = byte(at);
  return all;
}

void Upload::fail(const std::string& what) const {
  throw Violation(id + ": " + what);
}

void Upload::acknowledge(const Piece& piece) {
  known.push_back(piece);
  acknowledge_offset(piece.to);
}

void Upload::acknowledge_offset(std::uint64_t offset) {
  durable = std::max(durable, offset);
  believed = offset;
}

const Piece* Upload::owner_of(std::uint64_t at) const {
  const auto piece = std::ranges::find_if(
      known, [at](const Piece& each) { return each.from <= at && at < each.to; });
  return piece == known.end() ? nullptr : &*piece;
}

const Piece* Upload::trial_of(std::uint64_t at, char byte) const {
  const auto piece = std::ranges::find_if(tried, [at, byte](const Piece& each) {
    return each.from <= at && at < each.to && each.byte(at) == byte;
  });
  return piece == tried.end() ? nullptr : &*piece;
}

void Upload::check_content(std::string_view content, std::uint64_t from) const {
  const Piece* piece = nullptr;
  const std::uint64_t end = from + content.size();
  for (std::uint64_t at = from; at < end; ++at) {
    const char byte = content[at - from];
    const bool goes_on = piece != nullptr && at < piece->to && piece->byte(at) == byte;
    if (goes_on) continue;
    piece = owner_of(at);
    if (piece != nullptr && piece->byte(at) == byte) continue;
    if (piece != nullptr) fail("byte " + std::to_string(at) + " is not the acknowledged writer's");
    piece = trial_of(at, byte);
    if (piece == nullptr) fail("byte " + std::to_string(at) + " was written by nobody");
  }
}

void Upload::settle(std::string_view content) {
  std::vector<Piece> found;
  for (std::uint64_t at = 0; at < content.size(); ++at) {
    if (!found.empty() && at < found.back().to) continue;
    const Piece* piece = owner_of(at);
    if (piece == nullptr) piece = trial_of(at, content[at]);
    Piece part = *piece;
    part.from = at;
    // Another trial may have gone on where this one ended.
    part.to = at + 1;
    while (part.to < std::min<std::uint64_t>(piece->to, content.size()) &&
           piece->byte(part.to) == content[part.to]) {
      ++part.to;
    }
    found.push_back(part);
  }
  known = std::move(found);
  tried.clear();
  durable = believed = content.size();
  complete = length && durable >= *length;
}

Upload& Model::add() {
  Upload& upload = uploads_.emplace_back();
  upload.id = "u" + std::to_string(++ids_);
  return upload;
}

std::vector<Upload*> Model::all() {
  std::vector<Upload*> all;
  for (Upload& upload : uploads_) {
    if (upload.presence != Upload::Presence::gone || !upload.released_to.empty()) {
      all.push_back(&upload);
    }
  }
  return all;
}

}  // namespace tidemark::sim
