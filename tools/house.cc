#include "gradweave/tools/house.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace gradweave {
namespace {

// Returns the texts between backticks.
std::vector<std::string> Quoted(absl::string_view cell) {
  const std::vector<std::string> pieces = absl::StrSplit(cell, '`');
  std::vector<std::string> quoted;
  for (size_t i = 1; i < pieces.size(); i += 2) quoted.push_back(pieces[i]);
  return quoted;
}

std::string Show(absl::string_view folder) { return folder.empty() ? "the root" : absl::StrCat(folder, "/"); }

}  // namespace

std::string FolderOf(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? "" : std::string(path.substr(0, slash));
}

absl::StatusOr<std::vector<Room>> ReadTable(absl::string_view page) {
  std::vector<Room> rooms;
  bool inside = false;
  for (absl::string_view line : absl::StrSplit(page, '\n')) {
    if (absl::StartsWith(line, "| folder |")) inside = true;
    if (!absl::StartsWith(line, "|")) inside = false;
    if (!inside || absl::StartsWith(line, "| folder |") || absl::StartsWith(line, "| ---")) continue;
    const std::vector<absl::string_view> cells = absl::StrSplit(line, '|');
    if (cells.size() != 5) return absl::InvalidArgumentError(absl::StrCat("three cells expected: ", line));
    const std::vector<std::string> folders = Quoted(cells[1]);
    const absl::string_view permission = absl::StripAsciiWhitespace(cells[3]);
    std::vector<std::string> may_use = Quoted(permission);
    for (std::string& folder : may_use) folder = std::string(absl::StripSuffix(folder, "/"));
    const bool all = permission == "all above";
    if (all) {
      for (const Room& room : rooms) may_use.push_back(room.folder);
    } else if (folders.empty() || (may_use.empty() && permission != "nothing")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "folders in backticks expected, and in the last cell \"nothing\", \"all above\" or folders: ", line));
    }
    for (absl::string_view folder : folders) {
      const bool with_subfolders = absl::ConsumeSuffix(&folder, "/**");
      absl::ConsumeSuffix(&folder, "/");
      rooms.push_back({folder == "." ? "" : std::string(folder), with_subfolders,
                       std::string(absl::StripAsciiWhitespace(cells[2])), may_use, all});
    }
  }
  if (rooms.empty()) return absl::InvalidArgumentError("the page has no table with the header | folder |");
  return rooms;
}

std::vector<Include> IncludesOf(absl::string_view file, absl::string_view text) {
  std::vector<Include> includes;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, "#include \"gradweave/")) continue;
    includes.push_back({std::string(file), std::string(line.substr(0, line.find('"')))});
  }
  return includes;
}

absl::StatusOr<std::vector<Include>> ReadIncludes(const std::string& root) {
  namespace fs = std::filesystem;
  std::set<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    if (name[0] == '.' || absl::StartsWith(name, "bazel-")) {
      it.disable_recursion_pending();
    } else if (absl::EndsWith(name, ".h") || absl::EndsWith(name, ".cc") || absl::EndsWith(name, ".cu")) {
      files.insert(it->path().lexically_relative(root));
    }
  }
  if (error || files.empty()) return absl::NotFoundError(absl::StrCat("no sources in ", root, " ", error.message()));
  std::vector<Include> includes;
  for (const std::string& file : files) {
    std::stringstream text;
    text << std::ifstream(fs::path(root) / file).rdbuf();
    for (Include& include : IncludesOf(file, text.str())) includes.push_back(std::move(include));
  }
  return includes;
}

std::vector<std::string> CheckHouse(absl::Span<const Room> rooms, absl::Span<const Include> includes) {
  std::vector<std::string> errors;
  const auto find = [&](absl::string_view folder) {
    return std::find_if(rooms.begin(), rooms.end(), [&](const Room& room) {
      return room.folder == folder || (room.with_subfolders && absl::StartsWith(folder, room.folder + "/"));
    });
  };
  const auto lacks = [&](absl::string_view folder) {
    return absl::StrCat("docs/architecture.md's table of folders has no row for ", Show(folder));
  };
  std::set<std::pair<std::string, std::string>> used;  // Pairs of folders.
  std::set<std::string> lacking;
  for (const Include& include : includes) {
    const std::string user = FolderOf(include.file), folder = FolderOf(include.header);
    const bool is_test = absl::EndsWith(include.file, "_test.cc");
    if (!is_test) used.insert({user, folder});
    for (const std::string& side : {user, folder}) {
      if (find(side) == rooms.end() && lacking.insert(side).second) errors.push_back(lacks(side));
    }
    const auto room = find(user);
    if (user == folder || is_test || room == rooms.end() || room->with_subfolders) continue;
    if (std::find(room->may_use.begin(), room->may_use.end(), folder) == room->may_use.end()) {
      errors.push_back(absl::StrCat(include.file, " includes gradweave/", include.header, ": ", Show(user),
                                    " may not use ", Show(folder), " (docs/architecture.md)"));
    }
  }
  for (auto room = rooms.begin(); room != rooms.end(); ++room) {
    for (const std::string& folder : room->may_use) {
      const auto other = find(folder);
      if (other == rooms.end()) {
        errors.push_back(lacks(folder));
      } else if (other >= room) {
        errors.push_back(
            absl::StrCat(Show(room->folder), " may not use ", Show(folder),
                         ": a row of the table may use only rows above it, so that folders form no circle"));
      } else if (!room->may_use_all && !used.contains({room->folder, folder})) {
        errors.push_back(absl::StrCat(Show(room->folder), " uses nothing of ", Show(folder),
                                      ": take it out of its row in docs/architecture.md"));
      }
    }
  }
  return errors;
}

}  // namespace gradweave
