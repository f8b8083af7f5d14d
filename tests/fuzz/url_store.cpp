// Any bytes as the file of a FileURLStorage, against a second reader and writer of JSON: a torn or
// foreign file is an error and stays, a readable one keeps all that is in it through changes.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <tidemark/storage/file_url_storage.hpp>
#include <tidemark/storage/storage_error.hpp>

#include "file_tools.hpp"
#include "json_reference.hpp"
#include "one_thread.hpp"
#include "property.hpp"
#include "temporary_folder.hpp"

using namespace tidemark;
using namespace tidemark::test;

namespace {

/// What all inputs share.
struct World {
  TemporaryFolder folder;
  std::filesystem::path path = folder / "urls.json";
  OneThreadEngine engine;
  FileURLStorage urls{engine.engine(), path};
};

World& world() {
  static World the_world;
  return the_world;
}

std::optional<std::string> get(const Units& fingerprint) {
  return world().engine.run(world().urls.get_url(wtf8_of(fingerprint)));
}

void set(const Units& fingerprint, const Units& url) {
  world().engine.run(world().urls.set_url(wtf8_of(fingerprint), wtf8_of(url)));
}

void remove(const Units& fingerprint) {
  world().engine.run(world().urls.remove_url(wtf8_of(fingerprint)));
}

/// As json.dump(object, file, indent=2) writes it.
std::string expected_file(const JsonObject& object) {
  if (object.empty()) return "{}";
  std::string text = "{";
  for (const auto& [key, value] : object) {
    text += text.size() > 1 ? ",\n  " : "\n  ";
    text += write_string(key) + ": " + write_string(*value);
  }
  return text + "\n}";
}

void require_file(const JsonObject& object, const char* property) {
  require(contents(world().path) == expected_file(object), property);
}

template <class Operation>
void require_corrupt(std::string_view text, Operation operation) {
  try {
    operation();
    require(false, "a torn or foreign file is an error");
  } catch (const StorageError& error) {
    require(error.code() == Errc::corrupt, "a torn or foreign file is corrupt");
  }
  require(contents(world().path) == text, "a torn or foreign file stays");
}

bool is_read() {
  try {
    get(u"a");
    return true;
  } catch (const StorageError&) {
    return false;
  }
}

void check_changes(JsonObject object) {
  const Units fresh = u"a fingerprint that no input has\xD800\n";
  for (const auto& [key, value] : object) {
    require(get(key) == wtf8_of(*value), "every URL is found");
  }
  require(!get(fresh), "a URL that was not kept is not found");
  remove(fresh);
  JsonObject changed = object;
  set_member(changed, fresh, u"https://host/\x00E9");
  set(fresh, u"https://host/\x00E9");
  require_file(changed, "a new URL goes to the end, and all others are kept");
  remove(fresh);
  require_file(object, "a removed URL is gone, and all others are kept");
  if (object.empty()) return;
  object.front().second = u"";
  set(object.front().first, u"");
  require_file(object, "a changed URL keeps its place");
  remove(object.front().first);
  object.erase(object.begin());
  require_file(object, "all but the removed URL are kept");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = as_text(data, size);
  write_contents(world().path, text);
  JsonReader reader(text);
  const std::optional<JsonObject> object = reader.read_object(false);
  if (object && (!reader.has_passed_a_value() || is_read())) {
    check_changes(*object);
  } else {
    require_corrupt(text, [] { get(u"a"); });
    require_corrupt(text, [] { set(u"a", u"b"); });
    require_corrupt(text, [] { remove(u"a"); });
  }
  require(!std::filesystem::exists(world().path.string() + ".tmp"), "nothing is left behind");
  return 0;
}
