#include "mixed_client.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <stdexcept>
#include <utility>

#include <boost/system/system_error.hpp>

namespace tidemark::bench {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t k_most_errors = 100;  // The server is not worth going on with then.
constexpr double k_most_upload_bytes = 8 << 20;
constexpr double k_most_patch_bytes = 1 << 20;

const std::string k_version = " HTTP/1.1\r\nTus-Resumable: 1.0.0";

void expect(unsigned status, unsigned expected, const char* request) {
  if (status == expected) return;
  throw std::runtime_error(std::string(request) + ": " + std::to_string(status) + " in place of " +
                           std::to_string(expected));
}

}  // namespace

MixedClient::MixedClient(asio::any_io_executor executor, const TusUrl& url, std::uint64_t seed,
                         std::span<const char> pool, Clock::time_point end, MixedResult& result)
    : url_(url),
      random_(seed),
      pool_(pool),
      end_(end),
      result_(result),
      channel_(executor, url),
      rival_(executor, url) {}

asio::awaitable<void> MixedClient::run() {
  while (Clock::now() < end_ && result_.errors < k_most_errors) {
    try {
      co_await make_upload();
    } catch (const std::exception& error) {
      ++result_.errors;
      std::cerr << target_ << " at " << offset_ << " of " << content_.size() << ": " << error.what()
                << std::endl;
      channel_.reset();
    }
    rival_.reset();
  }
  channel_.reset();
}

asio::awaitable<void> MixedClient::make_upload() {
  enum { plain, cut_off, half_dead, question, give_up };
  std::discrete_distribution<int> chance({80, 8, 6, 5, 0.2});
  co_await create();
  while (offset_ < content_.size()) {
    switch (Clock::now() < end_ ? chance(random_) : give_up) {
      case plain:
        co_await append();
        break;
      case cut_off:
        co_await be_cut_off();
        break;
      case half_dead:
        co_await take_over();
        break;
      case question:
        co_await ask();
        break;
      case give_up:
        co_await remove();
        co_return;
    }
  }
  co_await compare();
  co_await remove();
  ++result_.uploads;
  result_.bytes += content_.size();
}

asio::awaitable<void> MixedClient::create() {
  const std::size_t size = random_size(k_most_upload_bytes);
  std::uniform_int_distribution<std::size_t> start(0, pool_.size() - size);
  content_ = pool_.subspan(start(random_), size);
  target_.clear();
  offset_ = sent_ = 0;
  contested_ = false;

  std::string head = "POST " + url_.path + k_version +
                     "\r\nContent-Length: 0\r\nUpload-Length: " + std::to_string(size);
  co_await channel_.send(std::move(head));
  const Answer answer = co_await channel_.receive();
  expect(answer.status, 201, "POST");
  target_ = answer.location;
}

asio::awaitable<void> MixedClient::append() {
  const std::size_t bytes = random_patch_size();
  std::string head = patch_head(bytes);
  const std::span<const char> body = content_.subspan(offset_, bytes);
  sent_ = std::max(sent_, offset_ + bytes);
  Answer answer;
  try {
    co_await channel_.send(std::move(head), body);
    answer = co_await channel_.receive();
  } catch (const boost::system::system_error&) {
    if (!contested_) throw;
  }
  if (contested_ && (answer.status == 0 || answer.status == 409)) {
    channel_.reset();
    co_await ask();
    co_return;
  }
  expect(answer.status, 204, "PATCH");
  if (answer.offset != offset_ + bytes) throw std::runtime_error("PATCH: another offset");
  offset_ += bytes;
  contested_ = false;
  co_await end_rival();
}

asio::awaitable<void> MixedClient::be_cut_off() {
  co_await send_part();
  channel_.reset();
  ++result_.resets;
  co_await ask();
}

asio::awaitable<void> MixedClient::take_over() {
  co_await send_part();
  rival_.reset();
  std::swap(channel_, rival_);
  const Clock::time_point began = Clock::now();
  co_await ask();
  result_.take_overs.push_back(Clock::now() - began);
}

/// Begins a PATCH whose body stays incomplete.
asio::awaitable<void> MixedClient::send_part() {
  const std::size_t bytes = random_patch_size();
  std::uniform_int_distribution<std::size_t> part(0, bytes - 1);
  const std::span<const char> body = content_.subspan(offset_, part(random_));
  std::string head = patch_head(bytes);
  contested_ = true;
  sent_ = std::max(sent_, offset_ + body.size());
  co_await channel_.send(std::move(head), body);
}

asio::awaitable<void> MixedClient::ask() {
  std::string head = "HEAD " + target_ + k_version;
  co_await channel_.send(std::move(head));
  const Answer answer = co_await channel_.receive(true);
  expect(answer.status, 200, "HEAD");
  const std::uint64_t most = contested_ ? sent_ : offset_;
  if (!answer.offset || *answer.offset < offset_ || *answer.offset > most) {
    throw std::runtime_error("HEAD: offset " + std::to_string(answer.offset.value_or(0)) +
                             ", at most " + std::to_string(most) + " was sent");
  }
  offset_ = *answer.offset;
}

/// Sees that the connection which was taken over is answered with 409 or closed.
asio::awaitable<void> MixedClient::end_rival() {
  if (!rival_.is_open()) co_return;
  unsigned status = 409;
  try {
    const Answer answer = co_await rival_.receive();
    status = answer.status;
  } catch (const boost::system::system_error&) {
  }
  rival_.reset();
  expect(status, 409, "PATCH that was taken over");
}

asio::awaitable<void> MixedClient::compare() {
  std::string head = "GET " + target_ + " HTTP/1.1";
  examples::Sha256 digest;
  co_await channel_.send(std::move(head));
  const Answer answer = co_await channel_.receive(false, &digest);
  expect(answer.status, 200, "GET");
  examples::Sha256 expected;
  expected.update(std::as_bytes(content_));
  if (digest.hex() != expected.hex()) throw std::runtime_error("GET: other bytes than were sent");
}

asio::awaitable<void> MixedClient::remove() {
  std::string removal = "DELETE " + target_ + k_version;
  co_await channel_.send(std::move(removal));
  const Answer removed = co_await channel_.receive();
  expect(removed.status, 204, "DELETE");
  std::string question = "HEAD " + target_ + k_version;
  co_await channel_.send(std::move(question));
  const Answer answer = co_await channel_.receive(true);
  expect(answer.status, 404, "HEAD after DELETE");
}

std::string MixedClient::patch_head(std::size_t bytes) const {
  return "PATCH " + target_ + k_version +
         "\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: " +
         std::to_string(bytes) + "\r\nUpload-Offset: " + std::to_string(offset_);
}

/// As many small ones as large ones, on a logarithmic scale.
std::size_t MixedClient::random_size(double most) {
  std::uniform_real_distribution<double> exponent(0, std::log2(most));
  return static_cast<std::size_t>(std::exp2(exponent(random_)));
}

std::size_t MixedClient::random_patch_size() {
  return std::min<std::size_t>(random_size(k_most_patch_bytes), content_.size() - offset_);
}

}  // namespace tidemark::bench
