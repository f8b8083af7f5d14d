#pragma once

#include <string_view>

namespace tus {

/// A file of the folder page/, as the program holds it.
struct PageFile {
  std::string_view path;
  std::string_view content_type;
  std::string_view text;
};

/// The file that is served at `path`, or null.
const PageFile* find_page_file(std::string_view path);

}  // namespace tus
