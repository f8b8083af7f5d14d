#include "digest.hpp"

#include <stdexcept>
#include <utility>

namespace tus {
namespace {

void check(int succeeded) {
  if (succeeded != 1) throw std::runtime_error("libcrypto refuses a digest");
}

}  // namespace

BodyDigest::BodyDigest(std::optional<DigestAlgorithm> only) {
  const std::pair<DigestAlgorithm, const EVP_MD*> digests[] = {
      {DigestAlgorithm::sha1, EVP_sha1()},
      {DigestAlgorithm::sha256, EVP_sha256()},
      {DigestAlgorithm::md5, EVP_md5()}};
  for (const auto& [algorithm, digest] : digests) {
    if (only && *only != algorithm) continue;
    Context context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    check(EVP_DigestInit_ex(context.get(), digest, nullptr));
    running_.push_back({algorithm, std::move(context)});
  }
  if (!only || *only == DigestAlgorithm::crc32) crc_.emplace();
}

void BodyDigest::update(std::span<const std::byte> bytes) {
  for (const Running& each : running_) {
    check(EVP_DigestUpdate(each.context.get(), bytes.data(), bytes.size()));
  }
  if (crc_) crc_->process_bytes(bytes.data(), bytes.size());
}

bool BodyDigest::matches() {
  return expected_ && finish(expected_->algorithm) == expected_->digest;
}

std::string BodyDigest::finish(DigestAlgorithm algorithm) {
  std::string digest;
  if (algorithm == DigestAlgorithm::crc32 && crc_) {
    // In the order of the network.
    for (const int shift : {24, 16, 8, 0}) {
      digest += static_cast<char>(crc_->checksum() >> shift & 0xffU);
    }
  }
  for (const Running& each : running_) {
    if (each.algorithm != algorithm) continue;
    unsigned size = EVP_MAX_MD_SIZE;
    digest.resize(size);
    check(EVP_DigestFinal_ex(each.context.get(), reinterpret_cast<unsigned char*>(digest.data()),
                             &size));
    digest.resize(size);
  }
  return digest;
}

}  // namespace tus
