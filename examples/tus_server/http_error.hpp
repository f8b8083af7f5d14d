#pragma once

#include <stdexcept>
#include <string>

#include <boost/beast/http/status.hpp>

namespace tus {

/// The status of the tus protocol that Beast does not know: the bytes were not the expected ones.
inline constexpr auto k_checksum_mismatch = static_cast<boost::beast::http::status>(460);

/// A request that is answered with an error: its status, and a sentence for people.
class HttpError : public std::runtime_error {
 public:
  HttpError(boost::beast::http::status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}

  boost::beast::http::status status() const { return status_; }

 private:
  boost::beast::http::status status_;
};

}  // namespace tus
