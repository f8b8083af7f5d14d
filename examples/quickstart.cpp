// Remembers where an upload client left off, and asks for it again.

#include <cstdio>
#include <optional>
#include <string>

#include <tidemark/engine/engine.hpp>
#include <tidemark/engine/sync_wait.hpp>
#include <tidemark/storage/file_url_storage.hpp>

namespace {

tidemark::Task<std::optional<std::string>> remember(tidemark::URLStorage& urls) {
  co_await urls.set_url("size:5--sha256:abc", "http://127.0.0.1/files/1");
  co_return co_await urls.get_url("size:5--sha256:abc");
}

}  // namespace

int main() {
  tidemark::Engine engine;
  tidemark::FileURLStorage urls(engine, "urls.json");
  const std::optional<std::string> url = tidemark::sync_wait(engine, remember(urls));
  std::printf("%s\n", url.value_or("nothing stored").c_str());
  return url ? 0 : 1;
}
