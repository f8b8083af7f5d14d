#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <boost/crc.hpp>
#include <openssl/evp.h>

#include <tidemark/storage/append.hpp>

#include "header_values.hpp"

namespace tus {

/// The digest of a request's body, computed where its bytes are written, and the one that the
/// client told. Until `expect` was called nothing matches, so that a body which breaks off is
/// never kept. `expect` happens before the writer is closed, in any thread.
class BodyDigest final : public tidemark::Checksum {
 public:
  /// With none, all algorithms are computed, since the trailer tells only at the end which it is.
  explicit BodyDigest(std::optional<DigestAlgorithm> only);

  void expect(const ExpectedDigest& expected) { expected_ = expected; }
  bool is_expected() const { return expected_.has_value(); }
  void update(std::span<const std::byte> bytes) override;
  bool matches() override;

 private:
  using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

  std::string finish(DigestAlgorithm algorithm);

  struct Running {
    DigestAlgorithm algorithm;
    Context context;
  };
  std::vector<Running> running_;  // By libcrypto.
  std::optional<boost::crc_32_type> crc_;
  std::optional<ExpectedDigest> expected_;
};

}  // namespace tus
