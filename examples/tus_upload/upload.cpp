#include "upload.hpp"

#include <algorithm>
#include <stdexcept>

#include <boost/asio/error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/system/system_error.hpp>

#include <tidemark/engine/asio.hpp>

#include "notices.hpp"

using namespace tidemark;

namespace examples {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

constexpr std::chrono::seconds k_delete_limit{10};  // For an answer that changes nothing.

/// The server refuses for now.
struct TransientError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The upload of an earlier run is not on the server, or is of another length.
struct UploadGone {};

/// A server may join or sync what it has before it answers.
std::chrono::seconds answer_limit(std::uint64_t file_bytes) {
  constexpr std::uint64_t k_bytes_per_second = std::uint64_t{16} << 20;
  return std::chrono::seconds(60 + file_bytes / k_bytes_per_second);
}

/// The status, and the server's own sentence about it where that is fit for a terminal.
std::string status_of(const Response& response) {
  const std::string said = response.body().substr(0, response.body().find_first_of("\r\n"));
  const auto is_printable = [](char c) { return c >= ' ' && c <= '~'; };
  std::string text = std::to_string(response.result_int());
  const http::status status = http::int_to_status(response.result_int());
  if (status != http::status::unknown) text.append(" ").append(http::obsolete_reason(status));
  const bool is_markup = said.starts_with('<');
  if (!said.empty() && !is_markup && said.size() <= 200 &&
      std::ranges::all_of(said, is_printable)) {
    text += " (" + said + ')';
  }
  return text;
}

std::optional<std::uint64_t> bytes_in(const Response& response, const char* name) {
  const auto value = response[name];
  return parse_bytes({value.data(), value.size()});
}

}  // namespace

Upload::Upload(Run& run, const Piece& piece, std::string fingerprint, Headers headers)
    : run_(run),
      piece_(piece),
      fingerprint_(std::move(fingerprint)),
      headers_(std::move(headers)),
      connection_(run.endpoint) {}

asio::awaitable<void> Upload::find() {
  co_await remember();
  while (url_ && !in_step_) co_await step();
}

asio::awaitable<void> Upload::send() {
  while (!is_complete()) co_await step();
}

asio::awaitable<void> Upload::discard() {
  if (!url_) co_await remember();
  if (url_) {
    try {
      // A new one: the server may have closed the other while it was idle.
      Connection connection(run_.endpoint);
      Request request = make_request(http::verb::delete_, *url_);
      request.prepare_payload();
      co_await connection.send(request, k_delete_limit);
    } catch (const std::runtime_error&) {  // What is not deleted only takes room.
    }
  }
  co_await forget();
}

/// Takes up the upload that an earlier run began on this server.
asio::awaitable<void> Upload::remember() {
  Task<std::optional<std::string>> task = run_.urls.get_url(fingerprint_);
  const std::optional<std::string> kept = co_await async(std::move(task), asio::use_awaitable);
  if (!kept) co_return;
  try {
    url_ = parse_url(*kept);
  } catch (const std::runtime_error&) {
    co_return;  // Another program's, for a server of another kind.
  }
  if (!is_same_server(*url_, run_.endpoint)) url_.reset();
  of_earlier_run_ = url_.has_value();
}

asio::awaitable<void> Upload::forget() {
  Task<void> task = run_.urls.remove_url(fingerprint_);
  co_await async(std::move(task), asio::use_awaitable);
}

asio::awaitable<void> Upload::step() {
  const std::string trouble = co_await try_step();
  if (!trouble.empty()) co_await pause(trouble);
}

/// Gives what went wrong, when it may go better the next time.
asio::awaitable<std::string> Upload::try_step() {
  std::string trouble;
  try {
    if (!url_) {
      co_await create();
    } else if (!in_step_) {
      co_await ask_offset();
    } else {
      co_await send_chunk();
    }
  } catch (const UploadGone&) {
    url_.reset();
    of_earlier_run_ = false;
    in_step_ = false;
  } catch (const TransientError& error) {
    trouble = error.what();
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::operation_aborted) throw;  // Another piece has failed.
    trouble = error.code().message();
  }
  co_return trouble;
}

asio::awaitable<void> Upload::create() {
  Request request = make_request(http::verb::post, run_.endpoint);
  for (const auto& [name, value] : headers_) request.set(name, value);
  const Response response = co_await exchange(std::move(request));
  const auto location = response[http::field::location];
  if (location.empty()) refuse(response, "the server gave no Location");
  url_ = resolve_location(run_.endpoint, {location.data(), location.size()});
  go_on_at(0);
  Task<void> task = run_.urls.set_url(fingerprint_, std::string(url_->buffer()));
  co_await async(std::move(task), asio::use_awaitable);
}

asio::awaitable<void> Upload::ask_offset() {
  Request request = make_request(http::verb::head, *url_);
  const Response response = co_await exchange(std::move(request));
  const std::optional<std::uint64_t> offset = bytes_in(response, "Upload-Offset");
  const std::optional<std::uint64_t> length = bytes_in(response, "Upload-Length");
  if (!offset || length != piece_.length || *offset > *length) {
    if (of_earlier_run_) throw UploadGone();
    fail("the server does not know the upload as it was made");
  }
  if (*offset > offset_) note_progress();
  go_on_at(*offset);
}

asio::awaitable<void> Upload::send_chunk() {
  Task<Chunk> task = run_.file.read(piece_, offset_);
  const Chunk chunk = co_await async(std::move(task), asio::use_awaitable);
  Request request = make_request(http::verb::patch, *url_);
  request.set(http::field::content_type, "application/offset+octet-stream");
  request.set("Upload-Offset", std::to_string(offset_));
  request.set("Upload-Checksum", checksum_value(chunk.sha1));
  request.body() = {chunk.bytes().data(), chunk.bytes().size()};
  const Response response = co_await exchange(std::move(request));
  const std::optional<std::uint64_t> offset = bytes_in(response, "Upload-Offset");
  if (!offset || *offset <= offset_ || *offset > offset_ + chunk.bytes().size()) {
    fail("the server gave no new Upload-Offset");
  }
  note_progress();
  move_to(*offset);
}

/// Gives the answer when it says that the request was carried out.
asio::awaitable<Response> Upload::exchange(Request request) {
  const Url& target = url_ ? *url_ : run_.endpoint;
  const bool is_head = request.method() == http::verb::head;
  doing_ = std::string(request.method_string()) + ' ' + std::string(target.buffer());
  request.prepare_payload();
  const std::chrono::seconds limit = answer_limit(run_.file.size());
  Response response = co_await connection_.send(request, limit);
  if (http::to_status_class(response.result_int()) == http::status_class::successful) {
    co_return response;
  }
  const unsigned status = response.result_int();
  // What was kept may not even be an upload's address.
  const bool is_other = is_head && (status == 400 || status == 403 || status == 405);
  if (of_earlier_run_ && (is_gone(status) || is_other)) throw UploadGone();
  const std::string why = "the server answered " + status_of(response);
  if (is_transient(status)) throw TransientError(why);
  refuse(response, why);
}

asio::awaitable<void> Upload::pause(const std::string& trouble) {
  if (retries_ == k_max_retries) {
    fail(trouble + ", also after " + std::to_string(retries_) + " retries");
  }
  if (retries_ == 0 && !run_.said_trouble) {
    say(doing_ + ": " + trouble + "; trying again");
    run_.said_trouble = true;
  }
  in_step_ = false;
  run_.bar.begin("waiting", run_.sent);
  const auto duration = backoff(retries_++, run_.engine.environment().random());
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  co_await timer.async_wait(asio::use_awaitable);
}

/// The server says that it stands there.
void Upload::go_on_at(std::uint64_t offset) {
  move_to(offset);
  in_step_ = true;
  run_.bar.begin("sending", run_.sent);
}

void Upload::move_to(std::uint64_t offset) {
  run_.sent = run_.sent - offset_ + offset;
  offset_ = offset;
  run_.bar.show(run_.sent);
}

void Upload::note_progress() {
  retries_ = 0;
  run_.said_trouble = false;
}

/// The answer is final.
void Upload::refuse(const Response& response, const std::string& why) const {
  if (url_ || !response["Tus-Resumable"].empty()) fail(why);
  throw std::runtime_error(std::string(run_.endpoint.buffer()) +
                           " is no tus endpoint: " + status_of(response));
}

void Upload::fail(const std::string& why) const {
  throw std::runtime_error(doing_ + ": " + why);
}

}  // namespace examples
