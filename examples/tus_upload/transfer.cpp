#include "transfer.hpp"

#include <array>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <tidemark/engine/asio.hpp>

#include "notices.hpp"
#include "protocol.hpp"

using namespace tidemark;

namespace examples {
namespace {

namespace asio = boost::asio;
using Uploads = std::vector<std::unique_ptr<Upload>>;

/// Runs `step` of all of them at once. The first that fails ends the others.
asio::awaitable<void> for_all(Uploads& uploads, asio::awaitable<void> (Upload::*step)()) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto start = [&executor, step](Upload& upload) {
    return asio::co_spawn(executor, (upload.*step)(), asio::deferred);
  };
  std::vector<decltype(start(*uploads.front()))> operations;
  for (const auto& upload : uploads) operations.push_back(start(*upload));
  auto group = asio::experimental::make_parallel_group(std::move(operations));
  const auto ended =
      co_await group.async_wait(asio::experimental::wait_for_one_error(), asio::use_awaitable);
  const auto& [order, errors] = ended;
  for (const std::size_t index : order) {
    if (errors[index]) std::rethrow_exception(errors[index]);
  }
}

asio::awaitable<void> send_all(Run& run, Uploads& uploads) {
  co_await for_all(uploads, &Upload::find);
  if (run.sent > 0 && run.sent < run.file.size()) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "going on at %.1f MiB",
                  static_cast<double>(run.sent) / (1 << 20));
    say(text.data());
  }
  co_await for_all(uploads, &Upload::send);
}

asio::awaitable<std::string> send_whole(Run& run, const std::string& fingerprint,
                                        const std::string& metadata) {
  Upload::Headers headers = {{"Upload-Length", std::to_string(run.file.size())},
                             {"Upload-Metadata", metadata}};
  Uploads uploads;
  uploads.push_back(
      std::make_unique<Upload>(run, run.file.pieces().front(), fingerprint, std::move(headers)));
  co_await send_all(run, uploads);
  co_await uploads.front()->forget();
  co_return std::string(uploads.front()->url().buffer());
}

Uploads make_parts(Run& run, const std::string& fingerprint) {
  const std::vector<Piece>& pieces = run.file.pieces();
  Uploads parts;
  for (const Piece& piece : pieces) {
    std::string name = part_fingerprint(fingerprint, parts.size() + 1, pieces.size());
    Upload::Headers headers = {{"Upload-Length", std::to_string(piece.length)},
                               {"Upload-Concat", "partial"}};
    parts.push_back(std::make_unique<Upload>(run, piece, std::move(name), std::move(headers)));
  }
  return parts;
}

/// Makes the upload that consists of `parts`.
asio::awaitable<void> join(Run& run, const Uploads& parts, const std::string& fingerprint,
                           const std::string& metadata) {
  std::vector<Url> urls;
  for (const auto& part : parts) urls.push_back(part->url());
  Upload::Headers headers = {{"Upload-Concat", final_value(urls)}, {"Upload-Metadata", metadata}};
  const Piece nothing;  // The parts have all that it consists of.
  Upload whole(run, nothing, fingerprint, std::move(headers));
  co_await whole.send();
}

/// The URL that is kept of the whole file, when the server has all of it there.
asio::awaitable<std::optional<std::string>> find_whole(Run& run, const std::string& fingerprint) {
  const Piece all{0, run.file.size(), {}};
  Upload whole(run, all, fingerprint, {});
  run.sent = 0;
  co_await whole.find();
  if (whole.is_complete()) co_return std::string(whole.url().buffer());
  run.sent = 0;  // It is not gone on with.
  co_return std::nullopt;
}

asio::awaitable<std::string> send_parts(Run& run, const std::string& fingerprint,
                                        const std::string& metadata) {
  Uploads parts = make_parts(run, fingerprint);
  std::optional<std::string> url = co_await find_whole(run, fingerprint);
  if (!url) {
    co_await send_all(run, parts);
    co_await join(run, parts, fingerprint, metadata);
    url = co_await find_whole(run, fingerprint);
    if (!url) throw std::runtime_error("the server has not joined the parts");
  }
  // The URL of the whole is kept until the last: a run that is killed meanwhile sends nothing anew.
  co_await for_all(parts, &Upload::discard);
  Task<void> task = run.urls.remove_url(fingerprint);
  co_await async(std::move(task), asio::use_awaitable);
  co_return *url;
}

}  // namespace

asio::awaitable<std::string> transfer(Run& run, std::string filename) {
  const std::string fingerprint = fingerprint_of(run.file.size(), run.file.sha256());
  const std::string metadata = metadata_value(filename);
  run.bar.begin("sending", 0);
  const bool in_parts = run.file.pieces().size() > 1;
  auto sending =
      in_parts ? send_parts(run, fingerprint, metadata) : send_whole(run, fingerprint, metadata);
  co_return co_await std::move(sending);
}

}  // namespace examples
