#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include <tidemark/storage/sqlite_storage.hpp>

#include "final_uploads.hpp"
#include "metrics.hpp"
#include "protocol.hpp"
#include "receive_upload.hpp"

namespace tus {

/// A request while it is answered.
struct Exchange {
  const RequestHeader& request;
  ClientSocket& client;
  RequestBody& body;
};

/// Answers what a request asks for from the storage. One for a server; any of its threads.
/// What goes wrong is thrown: HttpError, or StorageError, which `to_http_error` translates.
class Service {
 public:
  struct Options {
    ProtocolOptions protocol = {};
    std::optional<std::chrono::seconds> expire_after = {};
  };

  Service(tidemark::SQLiteStorage& storage, FinalUploads& finals, Options options)
      : storage_(storage), finals_(finals), options_(std::move(options)) {}

  Awaitable<Response> answer(const action::Capabilities& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::Create& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::Append& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::TellOffset& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::Terminate& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::ListUploads& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::TellHealth& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::TellMetrics& wanted, Exchange exchange);
  Awaitable<Response> answer(const action::GetPage& wanted, Exchange exchange);

  /// The upload, for whoever reads its content. Not one that has expired.
  Awaitable<tidemark::Upload> find(tidemark::UploadId id);

  const ProtocolOptions& protocol() const { return options_.protocol; }
  tidemark::SQLiteStorage& storage() { return storage_; }

  Counters counters;

 private:
  /// The same, after the present writer has ended; with an offset, unless it is further than that.
  Awaitable<tidemark::Upload> settle(tidemark::UploadId id,
                                     std::optional<std::uint64_t> offset = {});
  /// What `look` gives, else the final upload that is still to be joined.
  Awaitable<tidemark::Upload> find_by(tidemark::Task<std::optional<tidemark::Upload>> look,
                                      tidemark::UploadId id);
  Awaitable<void> create_final(tidemark::UploadId id, const action::Create& wanted,
                               const RequestHeader& request);
  /// Whether the upload is complete now.
  Awaitable<bool> receive(tidemark::UploadId id, std::uint64_t offset,
                          const std::optional<ExpectedDigest>& checksum, bool checksum_follows,
                          Exchange exchange, Response& response);
  Awaitable<bool> receive_first(tidemark::UploadId id, const action::Create& wanted,
                                Exchange exchange, Response& response);
  /// Tells a deferred length, if the upload stands where the request says.
  Awaitable<void> tell_length(const action::Append& wanted);

  tidemark::SQLiteStorage& storage_;
  FinalUploads& finals_;
  const Options options_;
};

HttpError to_http_error(const tidemark::StorageError& error);

}  // namespace tus
