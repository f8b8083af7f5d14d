#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tidemark::detail {

// Flat JSON objects of strings, as Python's json module writes and reads them.
//
// A Python string may hold lone surrogates; here they are the three bytes that UTF-8's rule gives
// them (WTF-8, https://simonsapin.github.io/wtf-8/). Thread safety: functions without state.

/// Whether `text` is UTF-8, where a lone surrogate is allowed and a high surrogate directly
/// followed by a low one is not: JSON would read such a pair back as one character.
[[nodiscard]] bool is_wtf8(std::string_view text) noexcept;

/// Appends `text` in quotes, byte for byte as json.dumps(text) does: ASCII, with lower-case \uXXXX
/// for everything outside ' '..'~' that has no short escape. `text` must satisfy is_wtf8().
void append_json_string(std::string& out, std::string_view text);

/// The members of the JSON object `text`, all of them strings, in order. As in Python, the last
/// value of a repeated key wins, at the key's first place. Keys and values satisfy is_wtf8().
/// Errors: StorageError (corrupt) with `source` as its operation, for anything else.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> parse_string_object(
    std::string_view text, std::string_view source);

/// As parse_string_object(), but a value may also be null: then it is empty here.
[[nodiscard]] std::vector<std::pair<std::string, std::optional<std::string>>>
parse_nullable_string_object(std::string_view text, std::string_view source);

}  // namespace tidemark::detail
