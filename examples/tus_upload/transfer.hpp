#pragma once

#include <string>

#include <boost/asio/awaitable.hpp>

#include "upload.hpp"

namespace examples {

/// Sends the file, as one upload or in parts that the server joins, and goes on with what an
/// earlier run has sent. Gives the URL of the upload that holds the whole file.
///
/// Errors: those of the uploads; the first ends all. Lifetime: `run` outlives it.
boost::asio::awaitable<std::string> transfer(Run& run, std::string filename);

}  // namespace examples
